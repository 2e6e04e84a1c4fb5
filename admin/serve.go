package admin

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Bounds of a server. A client gets one answer a connection: those that wait in
// between cost nothing then.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	headerBytes   = 8 << 10 // beyond net/http's own 4 KiB of slack
	connections   = 64
	bodyBytes     = 4 << 10
)

// Server is one of the two, on one listener.
type Server struct {
	http *http.Server
	done chan struct{}
}

// Serve answers on l by h until Close. An answer that takes longer than within is cut
// off. Errors of clients are debug lines in log. full is told of each connection that is
// closed for want of a place; it must not wait.
func Serve(l net.Listener, h http.Handler, within time.Duration, log *slog.Logger, full func()) *Server {
	s := &Server{done: make(chan struct{}), http: &http.Server{
		Handler:           plain(h),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      within,
		IdleTimeout:       headerTimeout,
		MaxHeaderBytes:    headerBytes,
		ConnContext:       placed,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),

		DisableGeneralOptionsHandler: true,
	}}
	s.http.SetKeepAlivesEnabled(false)
	go func() {
		defer close(s.done)
		// It always ends by Close.
		_ = s.http.Serve(&bounded{Listener: l, full: full})
	}()
	return s
}

// Close takes no more clients, and waits for answers that are under way until ctx
// ends; they are cut off then.
func (s *Server) Close(ctx context.Context) {
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	<-s.done
}

// plain has every answer say that it is for no browser.
func plain(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asks(r)
		head := w.Header()
		head.Set("Cache-Control", "no-store")
		head.Set("Content-Security-Policy", "default-src 'none'")
		head.Set("X-Content-Type-Options", "nosniff")
		r.Body = http.MaxBytesReader(w, r.Body, bodyBytes)
		h.ServeHTTP(w, r)
	})
}

// only has h answer requests of these methods alone.
func only(h http.HandlerFunc, methods ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(methods, r.Method) {
			h(w, r)
			return
		}
		w.Header().Set("Allow", strings.Join(methods, ", "))
		http.Error(w, "405: the method here is "+strings.Join(methods, " or "), http.StatusMethodNotAllowed)
	}
}
