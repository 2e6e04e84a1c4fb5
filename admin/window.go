package admin

import (
	"io"
	"net/http"

	"sallyport/observe"
)

// Window gives what anybody may read: /metrics, /healthz and /readyz, by GET and HEAD.
// ready says whether the process takes new connections.
func Window(m *observe.Metrics, ready func() bool) http.Handler {
	metrics := m.Handler()
	pages := map[string]http.HandlerFunc{
		"/metrics": metrics.ServeHTTP,
		"/healthz": func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok\n") },
		"/readyz": func(w http.ResponseWriter, _ *http.Request) {
			if ready() {
				say(w, http.StatusOK, "ready\n")
				return
			}
			say(w, http.StatusServiceUnavailable, "ending: no new connections\n")
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, ok := pages[r.URL.Path] // as it stands: no path is made another
		if !ok {
			http.Error(w, "404: there is /metrics, /healthz and /readyz", http.StatusNotFound)
			return
		}
		only(page, http.MethodGet, http.MethodHead)(w, r)
	})
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	// A client that has gone needs no answer.
	_, _ = io.WriteString(w, text)
}
