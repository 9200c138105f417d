package jsonread_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"taskrunner/internal/jsonread"
)

// drain reads a body by its parts: arrays and objects to the third level by their elements and members.
func drain(body io.Reader, root string) error {
	s := jsonread.NewStream(body)
	s.Enter(root)
	drainValue(s, 2)
	s.End()
	return s.Err()
}

func drainValue(s *jsonread.Stream, levels int) {
	switch kind := s.Kind(); {
	case kind == jsonread.Array:
		for range s.Elements {
		}
	case kind == jsonread.Object && levels > 0:
		for range s.Members {
			drainValue(s, levels-1)
		}
	default:
		s.Value()
	}
}

// The window ends in every place, and a stream says what Check says, but that of two mistakes it tells the first one.
func TestStream(t *testing.T) {
	t.Parallel()
	for _, body := range accepted {
		for _, pad := range pads(body) {
			if err := drain(strings.NewReader(pad+body), "body"); err != nil {
				t.Errorf("%.60q behind %d: %v", body, len(pad), err)
			}
		}
	}
	for _, c := range refused {
		for _, pad := range pads(c.body) {
			want := jsonread.Check([]byte(pad+c.body), "body").Error()
			err := drain(strings.NewReader(pad+c.body), "body")
			if _, is := errors.AsType[jsonread.Problems](err); !is {
				t.Errorf("%.60q behind %d: %v, want %s", c.body, len(pad), err, want)
				continue
			}
			got := err.Error()
			if strings.Contains(want, "UTF-8") { // Check does not know in which element
				got = "body" + got[strings.Index(got, ":"):]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%.60q behind %d: -want +got:\n%s", c.body, len(pad), diff)
			}
		}
	}
}

// pads are white space that brings each part of body to the end of the first window, and some lines before it.
func pads(body string) []string {
	const window = 4 << 10
	all := []string{"", "\n \n"}
	for i := range min(len(body), 80) + 1 {
		all = append(all, strings.Repeat("\n", 3)+strings.Repeat(" ", window-3-i))
	}
	return all
}

// FuzzStream: whatever the body, a stream accepts what Check accepts, and gives out the same.
func FuzzStream(f *testing.F) {
	for _, body := range accepted {
		f.Add([]byte(body), 7)
	}
	for _, c := range refused {
		f.Add([]byte(c.body), 4090)
	}
	f.Fuzz(func(t *testing.T, body []byte, pad int) {
		whole := strings.Repeat(" ", max(0, pad)%5000) + string(body)
		want, got := jsonread.Check([]byte(whole), "body"), drain(iotest.OneByteReader(strings.NewReader(whole)), "body")
		if (want == nil) != (got == nil) && !strings.Contains(fmt.Sprint(got), "more than 100 members") {
			t.Fatalf("Check says %v, the stream %v", want, got)
		}
	})
}

func TestStreamValues(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300<<10) // larger than every window
	body := `{"a":[1,"` + long + `",{"b":[true]}],"\u0062":null}`
	s := jsonread.NewStream(iotest.HalfReader(strings.NewReader(body)))
	var got []string
	for name := range s.Members {
		got = append(got, name)
		for i, v := range s.Elements {
			if i == 1 && v.Text() == long {
				got = append(got, "long")
				continue
			}
			got = append(got, string(v.Raw()))
		}
		if name == "b" {
			v, ok := s.Value()
			got = append(got, v.Kind().String())
			if !ok {
				t.Error("no value")
			}
		}
	}
	s.End()
	if diff := cmp.Diff([]string{"a", "1", "long", `{"b":[true]}`, "b", "null"}, got); diff != "" || s.Err() != nil {
		t.Errorf("%v, -want +got:\n%s", s.Err(), diff)
	}
}

func TestStreamMembers(t *testing.T) {
	t.Parallel()
	members := make([]string, 101)
	for i := range members {
		members[i] = fmt.Sprintf(`"m%d":%d`, i, i)
	}
	if err := drain(strings.NewReader("{"+strings.Join(members[:100], ",")+"}"), "body"); err != nil {
		t.Error(err)
	}
	if err := drain(strings.NewReader("{"+strings.Join(members, ",")+"}"), "body"); err == nil || err.Error() != "body: more than 100 members at line 1, column 882" {
		t.Error(err)
	}
}

// A body that breaks off by an error of its reader is refused by that error, not as JSON that ends too early.
func TestStreamBroken(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, begin := range []string{"", "[", "[1", `["a`, `{"a"`, `{"a":1`, `[1]`} {
		if err := drain(io.MultiReader(strings.NewReader(begin), iotest.ErrReader(broken)), "body"); !errors.Is(err, broken) {
			t.Errorf("%q: %v", begin, err)
		}
	}
}
