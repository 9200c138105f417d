package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A graph waits for its place for a while, and is read for as long as it takes.
func TestListsGraph(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lists := NewLists(2)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			_ = lists.Do(ctx, func() error {
				<-ctx.Done()
				return nil
			})
		}()
		synctest.Wait()
		began := time.Now()
		err := lists.Graph(t.Context(), func(context.Context) error { return nil })
		if waited := time.Since(began); !errors.Is(err, ErrListsBusy) || waited != GraphWait {
			t.Errorf("after %v: %v", waited, err)
		}
		cancel()
		if err := lists.Graph(t.Context(), func(ctx context.Context) error {
			time.Sleep(10 * GraphWait)
			return ctx.Err()
		}); err != nil {
			t.Error(err)
		}
	})
}
