package task

import "net/textproto"

// HiddenValue stands for the value of a header that is not shown. No header can have it.
const HiddenValue = "•••"

// harmlessHeaders say how to talk and what belongs together. Whatever else there is may be a secret, by whatever name.
var harmlessHeaders = map[string]bool{
	"Accept": true, "Accept-Encoding": true, "Accept-Language": true, "Cache-Control": true, "Content-Language": true,
	"Content-Type": true, "User-Agent": true, "X-Correlation-Id": true, "X-Request-Id": true,
}

// ShownHeaders are the headers of an action as anybody may see them: in the API, in logs, in errors. The names stay, and
// the values of harmless ones.
func ShownHeaders(headers map[string]string) map[string]string {
	if headers == nil {
		return nil
	}
	shown := make(map[string]string, len(headers))
	for name, value := range headers {
		if !harmlessHeaders[textproto.CanonicalMIMEHeaderKey(name)] {
			value = HiddenValue
		}
		shown[name] = value
	}
	return shown
}
