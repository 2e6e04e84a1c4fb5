package ct

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Bounds on a list. Google's has 40 logs in 60 KiB.
const (
	MaxList      = 4 << 20  // bytes
	MaxSignature = 16 << 10 // bytes
	maxLogs      = 4096
)

// State is what may come of a log's SCTs (Chrome's log policy).
type State uint8

const (
	Pending State = iota // or of no state: nothing that it signs counts
	Qualified
	Usable
	ReadOnly
	Retired
	Rejected
)

func (s State) String() string {
	return [...]string{"pending", "qualified", "usable", "readonly", "retired", "rejected"}[s]
}

// live says that SCTs count whenever they were made.
func (s State) live() bool { return s == Qualified || s == Usable || s == ReadOnly }

// Log is one log of a list.
type Log struct {
	ID          [32]byte
	Description string
	Operator    string // now; [Log.OperatorAt] for then
	Tiled       bool   // by static-ct-api
	Test        bool   // none of its SCTs count
	State       State
	Since       time.Time // of the state
	// Start and End are of the time between which a certificate has to expire
	// that the log takes, the end excluded; zero where it takes any.
	Start, End time.Time

	key    crypto.PublicKey
	noKey  error // why key is nil
	before []previous
}

type previous struct {
	name string
	end  time.Time
}

func (l *Log) String() string { return fmt.Sprintf("%q (%s)", l.Description, l.Operator) }

// OperatorAt is who ran the log at t.
func (l *Log) OperatorAt(t time.Time) string {
	for _, p := range l.before { // the earliest first
		if t.Before(p.end) {
			return p.name
		}
	}
	return l.Operator
}

// List is a list of logs.
type List struct {
	Time time.Time // when it was made
	Logs []*Log
}

// The list as JSON, version 3 of
// https://www.gstatic.com/ct/log_list/v3/log_list_schema.json. What is not
// named here is passed over: the schema grows.
type listJSON struct {
	Time      *time.Time     `json:"log_list_timestamp"`
	Operators []operatorJSON `json:"operators"`
}

type operatorJSON struct {
	Name  string    `json:"name"`
	Logs  []logJSON `json:"logs"`
	Tiled []logJSON `json:"tiled_logs"`
}

type logJSON struct {
	Description string               `json:"description"`
	ID          []byte               `json:"log_id"`
	Key         []byte               `json:"key"`
	Type        string               `json:"log_type"`
	State       map[string]stateJSON `json:"state"`
	Interval    *struct {
		Start time.Time `json:"start_inclusive"`
		End   time.Time `json:"end_exclusive"`
	} `json:"temporal_interval"`
	Before []struct {
		Name string    `json:"name"`
		End  time.Time `json:"end_time"`
	} `json:"previous_operators"`
}

type stateJSON struct {
	Time time.Time `json:"timestamp"`
}

// ParseList reads a list of logs. A key of a kind that is not known here is no
// error; its log is known, and verifies nothing.
func ParseList(data []byte) (*List, error) {
	if len(data) > MaxList {
		return nil, fmt.Errorf("a list of logs of %d bytes; at most %d are read", len(data), MaxList)
	}
	var in listJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("no list of logs in JSON: %w", err)
	}
	if in.Time == nil || in.Time.IsZero() {
		return nil, errors.New("a list of logs without log_list_timestamp: only version 3 of the format is known here")
	}
	l := &List{Time: *in.Time}
	seen := map[[32]byte]bool{}
	for i := range in.Operators {
		op := &in.Operators[i]
		for _, kind := range []struct {
			key   string
			logs  []logJSON
			tiled bool
		}{{"logs", op.Logs, false}, {"tiled_logs", op.Tiled, true}} {
			for j := range kind.logs {
				at := fmt.Sprintf("operators[%d].%s[%d]", i, kind.key, j)
				log, err := kind.logs[j].log(op.Name)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", at, err)
				}
				if seen[log.ID] {
					return nil, fmt.Errorf("%s: the log %s stands in the list twice", at, log)
				}
				seen[log.ID], log.Tiled = true, kind.tiled
				if l.Logs = append(l.Logs, log); len(l.Logs) > maxLogs {
					return nil, fmt.Errorf("more than %d logs", maxLogs)
				}
			}
		}
	}
	if len(l.Logs) == 0 {
		return nil, errors.New("a list without any log")
	}
	return l, nil
}

func (j *logJSON) log(operator string) (*Log, error) {
	if operator == "" {
		return nil, errors.New("an operator without a name")
	}
	id := sha256.Sum256(j.Key)
	if string(id[:]) != string(j.ID) {
		return nil, fmt.Errorf("log_id of %q is not the SHA-256 of its key", j.Description)
	}
	l := &Log{ID: id, Description: j.Description, Operator: operator, Test: j.Type != "" && j.Type != "prod"}
	if l.key, l.noKey = x509.ParsePKIXPublicKey(j.Key); l.noKey == nil {
		l.noKey = takesKey(l.key)
	}
	if l.noKey != nil {
		l.key = nil
	}
	if len(j.State) > 1 {
		return nil, fmt.Errorf("the log %q has %d states", j.Description, len(j.State))
	}
	for name, s := range j.State {
		for _, state := range []State{Qualified, Usable, ReadOnly, Retired, Rejected} {
			if state.String() == name {
				l.State, l.Since = state, s.Time
			}
		}
	}
	if l.State == Retired && l.Since.IsZero() {
		return nil, fmt.Errorf("the log %q is retired, but since when is not said", j.Description)
	}
	if j.Interval != nil {
		if l.Start, l.End = j.Interval.Start, j.Interval.End; !l.Start.Before(l.End) {
			return nil, fmt.Errorf("the temporal_interval of %q ends before it begins", j.Description)
		}
	}
	for _, p := range j.Before {
		l.before = append(l.before, previous{p.Name, p.End})
	}
	slices.SortFunc(l.before, func(a, b previous) int { return a.end.Compare(b.end) })
	return l, nil
}

// ParseKeys reads the PUBLIC KEYs of a PEM file, by which lists are signed. It
// gives none of a file that is something else.
func ParseKeys(data []byte) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("a PEM block of type %q, not PUBLIC KEY", block.Type)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err == nil {
			err = takesKey(key)
		}
		if err != nil {
			return nil, fmt.Errorf("a key that checks no list: %w", err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// VerifyList checks the signature that comes in a file of its own beside a list
// (log_list.sig): SHA-256 with RSA (PKCS #1 v1.5) or ECDSA on P-256, bare bytes.
func VerifyList(data, signature []byte, keys []crypto.PublicKey) error {
	for _, k := range keys {
		if verifies(k, data, signature) {
			return nil
		}
	}
	return fmt.Errorf("the signature of the list is by none of the %d keys", len(keys))
}
