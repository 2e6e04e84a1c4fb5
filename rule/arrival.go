package rule

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"
)

// Choice is an expression over an [Arrival]: whether a route takes a flow.
type Choice struct{ expression }

// Arrival is what an expression can ask of before any handshake. All but the time
// is a stranger's word.
type Arrival struct {
	SNI      string    `expr:"sni" doc:"the server name that the client asks for, in lower case; empty where there is none"`
	ALPN     []string  `expr:"alpn" doc:"the protocols that the client offers"`
	TLS      bool      `expr:"tls" doc:"whether the client began with a ClientHello"`
	Versions []string  `expr:"versions" doc:"the versions that the client offers: TLS 1.2, TLS 1.3, DTLS 1.2 and the like"`
	JA4      string    `expr:"ja4" doc:"the JA4 fingerprint of the ClientHello on the wire"`
	Address  string    `expr:"address" doc:"the client's IP address; empty for a unix socket"`
	Port     int       `expr:"port" doc:"the port that the client has reached; 0 for a unix socket"`
	Time     time.Time `expr:"time" doc:"when the connection came, in UTC"`
}

// Hello are the words of an [Arrival] that come out of a ClientHello.
var Hello = []string{"sni", "alpn", "tls", "versions", "ja4"}

var ofArrival = language{
	of:   Arrival{},
	hint: "it can ask of sni, alpn (a list: \"h2\" in alpn), tls, versions (a list too), ja4, address, port and time; see sallyport.yaml(5)",
	absent: func(word string) (msg, hint string) {
		if !slices.Contains(words(Subject{}), word) {
			return "", ""
		}
		return word + " is not known yet: a route is chosen before the handshake, and before anybody is verified",
			"who may pass is said by `allow`, beside `client.ca`: allow: [{if: EXPR}]"
	},
}

// ParseChoice compiles the `if` of a route.
func ParseChoice(text string) (*Choice, error) {
	e, err := compile(text, ofArrival)
	if err != nil {
		return nil, err
	}
	if len(e.asks) == 0 {
		return nil, &Error{Msg: "it asks of nothing, and is the same for everybody", Hint: ofArrival.hint}
	}
	return &Choice{e}, nil
}

// Asks are the words that stand in the expression.
func (c *Choice) Asks() []string { return slices.Clone(c.asks) }

// AsksHello gives a word of it that comes out of a ClientHello; empty if there is none.
func (c *Choice) AsksHello() string {
	for _, w := range c.asks {
		if slices.Contains(Hello, w) {
			return w
		}
	}
	return ""
}

// Meaning says what a word of an [Arrival] is; it is empty for any other.
func Meaning(word string) string {
	for f := range reflect.TypeFor[Arrival]().Fields() {
		if f.Tag.Get("expr") == word {
			return f.Tag.Get("doc")
		}
	}
	return ""
}

// Holds says whether the expression is true of a. What fails is not true, nor known
// to be false.
func (c *Choice) Holds(a *Arrival) (bool, error) {
	if err := a.bounded(); err != nil {
		return false, err
	}
	return c.holds(a)
}

// ErrTooMuch is that a client said more than an expression looks at.
var ErrTooMuch = errors.New("more than is looked at")

// Bounds on what a ClientHello may have evaluated, which costs its sender nothing.
const (
	maxOffered = 32   // protocols or versions; browsers offer two of each
	maxHello   = 2048 // bytes of the name and of all protocols
)

func (a *Arrival) bounded() error {
	if n := max(len(a.ALPN), len(a.Versions)); n > maxOffered {
		return fmt.Errorf("the ClientHello offers %d protocols or versions, and an `if` looks at %d: %w", n, maxOffered, ErrTooMuch)
	}
	all := len(a.SNI)
	for _, p := range a.ALPN {
		all += len(p)
	}
	if all > maxHello {
		return fmt.Errorf("the ClientHello has a server name and protocols of %d bytes, and an `if` looks at %d: %w", all, maxHello, ErrTooMuch)
	}
	return nil
}
