package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"sallyport/observe"
)

// Controller does what the control socket is asked for.
type Controller interface {
	Status() Status
	Flows(most int) Flows
	Sandbox() Sandbox
	// Reload reads everything anew, and says why what ran before goes on where it does.
	Reload(ctx context.Context) error
	// Drain takes a server out, or with back puts it back in.
	Drain(ctx context.Context, server string, back bool) error
	// End has the process take no new connections, and end when those that are open have.
	End()
	// Kill ends one flow, and says whether there was one of that ID.
	Kill(id uint64) bool
}

// Status is how the process is.
type Status struct {
	Version      string        `json:"version"`
	PID          int           `json:"pid"`
	Started      time.Time     `json:"started"`
	Loaded       time.Time     `json:"loaded"` // when what runs was read
	Ready        bool          `json:"ready"`
	Reloads      uint64        `json:"reloads"`
	Failed       uint64        `json:"failed_reloads"`
	LostLines    uint64        `json:"lost_log_lines"`
	Open         int           `json:"open_flows"`
	Most         int           `json:"most_flows,omitzero"` // 0: there is no bound
	MostFrom     string        `json:"most_flows_from,omitempty"`
	Ended        uint64        `json:"ended_flows"`
	Up           int64         `json:"up"`
	Down         int64         `json:"down"`
	Listeners    []Listener    `json:"listeners"`
	Servers      []Upstream    `json:"servers"`
	Certificates []Certificate `json:"certificates"`
	Held         []Held        `json:"held,omitempty"`
}

// Listener is one that accepts.
type Listener struct {
	Name string `json:"name"`
	From string `json:"from"`
	Addr string `json:"addr"`
}

// Upstream is a server of a route.
type Upstream struct {
	Route string    `json:"route"`
	Addr  string    `json:"addr"`
	State string    `json:"state"`
	Since time.Time `json:"since,omitzero"`
	Flows int       `json:"flows"`
	Err   string    `json:"err,omitempty"`
	// Service is the name whose SRV records lead there; empty where it stands in the file.
	Service string `json:"service,omitempty"`
}

// Certificate is one of ours.
type Certificate struct {
	File     string    `json:"file"`
	Name     string    `json:"name"`
	NotAfter time.Time `json:"not_after"`
}

// Held is a certificate of ours that waits until DNS has the record to publish.
type Held struct {
	Listener string    `json:"listener"`
	Name     string    `json:"name"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	Publish  string    `json:"publish"`
}

// Sandbox is what the process has left itself, and no reload can add to.
type Sandbox struct {
	UID      int      `json:"uid"`
	GID      int      `json:"gid"`
	Groups   []int    `json:"groups"`   // beside gid
	Landlock int      `json:"landlock"` // version; 0: its files are not confined
	Dropped  bool     `json:"dropped"`  // its capabilities
	Folders  Folders  `json:"folders"`
	Bound    []string `json:"bound"` // addresses that it listens on

	Stays          map[string]string `json:"stays"`           // settings that no reload changes, but for those of its command line
	StateDirectory string            `json:"state_directory"` // the state_dir where its file names none
}

// Folders are what it may reach: folders with all that is below, or single files.
type Folders struct {
	Read    []string `json:"read"`
	Append  []string `json:"append"`
	Keep    []string `json:"keep"`
	Sockets []string `json:"sockets"`
}

// Flows are those alive, and how many there are where the list is not all.
type Flows struct {
	All  int             `json:"all"`
	List []observe.Alive `json:"flows"`
}

const (
	mostFlows = 10_000
	// AnswerWithin bounds an answer of the control socket: a reload, or a profile.
	AnswerWithin   = 2 * time.Minute
	longestProfile = time.Minute
	// Header stands in every request that changes something: no page of another site
	// can have a browser send it.
	Header = "Sallyport-Control"
)

// Control answers what c can do. Over TCP it takes only requests to an address, not
// to a name that another site may have pointed here, and gives no profiles.
func Control(c Controller, overTCP bool) http.Handler {
	pages := map[string]http.HandlerFunc{
		"/status":  only(func(w http.ResponseWriter, _ *http.Request) { answer(w, c.Status()) }, http.MethodGet),
		"/sandbox": only(func(w http.ResponseWriter, _ *http.Request) { answer(w, c.Sandbox()) }, http.MethodGet),
		"/flows":   only(func(w http.ResponseWriter, _ *http.Request) { answer(w, c.Flows(mostFlows)) }, http.MethodGet),
		"/kill":    told(func(w http.ResponseWriter, r *http.Request) { kill(c, w, r) }),
		"/drain":   told(func(w http.ResponseWriter, r *http.Request) { drain(c, w, r) }),
		"/reload":  told(func(w http.ResponseWriter, r *http.Request) { done(w, c.Reload(r.Context())) }),
	}
	if !overTCP {
		pages["/pprof"] = only(profile, http.MethodGet)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, ok := pages[r.URL.Path]
		switch {
		case overTCP && !toAddress(r.Host):
			refuse(w, http.StatusForbidden, "the request is to a name and not to an address")
		case !ok:
			refuse(w, http.StatusNotFound, "there is no such thing here")
		default:
			// Of a request that has come whole; else it would be cancelled when the
			// time to read it is over.
			_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
			page(w, r)
		}
	})
}

func toAddress(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || host == "localhost"
}

// told is for requests that change something.
func told(h http.HandlerFunc) http.HandlerFunc {
	return only(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(Header) == "" {
			refuse(w, http.StatusForbidden, "a request that changes something needs the header "+Header)
			return
		}
		h(w, r)
	}, http.MethodPost)
}

func kill(c Controller, w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.URL.Query().Get("id"), 10, 64)
	switch {
	case err != nil:
		refuse(w, http.StatusBadRequest, "id is no number")
	case !c.Kill(id):
		refuse(w, http.StatusNotFound, fmt.Sprintf("no flow has the ID %d; it may have ended", id))
	default:
		done(w, nil)
	}
}

func drain(c Controller, w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if server := q.Get("server"); server != "" {
		done(w, c.Drain(r.Context(), server, q.Get("back") != ""))
		return
	}
	c.End()
	done(w, nil)
}

// profile writes one of the process for go tool pprof.
func profile(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("kind") == "cpu" {
		seconds, err := strconv.Atoi(q.Get("seconds"))
		length := time.Duration(seconds) * time.Second
		if err != nil || length <= 0 || length > longestProfile {
			refuse(w, http.StatusBadRequest, "seconds is from 1 to 60")
			return
		}
		if err := pprof.StartCPUProfile(w); err != nil {
			refuse(w, http.StatusConflict, err.Error())
			return
		}
		defer pprof.StopCPUProfile()
		t := time.NewTimer(length)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
		}
		return
	}
	p := pprof.Lookup(q.Get("kind"))
	if p == nil {
		refuse(w, http.StatusNotFound, "no such profile: cpu, heap, allocs, goroutine, threadcreate, block or mutex")
		return
	}
	if p.Name() == "heap" {
		runtime.GC() // what is garbage is not held
	}
	// A client that has gone needs no answer.
	_ = p.WriteTo(w, 0)
}

// Failure is the answer where something went wrong.
type Failure struct {
	Err string `json:"err,omitempty"`
}

func done(w http.ResponseWriter, err error) {
	if err != nil {
		refuse(w, http.StatusConflict, err.Error())
		return
	}
	answer(w, Failure{})
}

func refuse(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(Failure{text})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
