package config

import (
	"net/netip"
	"time"

	"sallyport/name"
)

// File is everything that was said, resolved: inherited, defaulted and checked
// as far as that is possible without opening another file.
//
// The tag key is the word in the file, doc its line in the help, the man page
// and the JSON Schema; main marks the key that a scalar short form sets; as
// says what a text is beyond its Go type: a file, a pin, an end's address.
type File struct {
	Admin     Address       `key:"admin" doc:"unix socket for sallyport status, flows, kill, reload and the like, mode 0600 (default of run: $RUNTIME_DIRECTORY/admin.sock)" as:"admin"`
	Metrics   Address       `key:"metrics" doc:"where to serve /metrics for Prometheus, /healthz and /readyz, in clear: tcp://127.0.0.1:9100, unix:PATH (default: nowhere)" as:"metrics"`
	Log       Log           `key:"log" doc:"how and what to log, to standard error"`
	Resolver  Resolver      `key:"resolver" doc:"which DNS resolver is asked (default: the system's)"`
	User      string        `key:"user" doc:"whom to become once listening, where root starts it: NAME or UID, of its own groups or of :GROUP alone (default: sallyport, where there is such a user)" as:"user"`
	Limits    ProcessLimits `key:"limits" doc:"what the process may take; only in a file"`
	StateDir  string        `key:"state_dir" doc:"folder for what outlives the process, mode 0700 (default: $STATE_DIRECTORY, else memory only)" as:"file"`
	CTLogList []string      `key:"ct_log_list" doc:"lists of Certificate Transparency logs: JSON files or URLs, and PEM files with the keys that sign them" as:"source"`
	Listeners []Listener    `key:"listeners" doc:"where clients are accepted"`
	Unsafe    Process       `key:"unsafe" doc:"dangerous switches of the whole process; each is announced at start"`
	Resolve   []Resolve     // --resolve, on the command line alone
	Given     []string      // keys that the command line decides, whatever the file says
	Warnings  []Warning
}

// Log says how the log is written.
type Log struct {
	Format LogFormat `key:"format" doc:"text or json" default:"text"`
	Level  LogLevel  `key:"level" doc:"debug, info, warn or error" default:"info"`
	Sample Part      `key:"sample" doc:"the share of connections that ended well which have a record, from 0 to 1; all others always have one" default:"1.0"`
}

// Resolver says where names are looked up.
type Resolver struct {
	Addr    []Address `key:"addr" doc:"the resolvers: udp://127.0.0.1:53, or tls://9.9.9.9:853 for DNS over TLS" as:"resolver"`
	Trusted Switch    `key:"trusted" doc:"take their word on DNSSEC (the AD bit) although they are neither on loopback nor reached over TLS" default:"off"`
	Anchor  string    `key:"anchor" doc:"file with the DS or DNSKEY records of the root: DNSSEC is then validated here" as:"file"`
}

// ProcessLimits bound what all listeners take together.
type ProcessLimits struct {
	Flows      Count  `key:"flows" doc:"connections and associations at once; 0 is what the file descriptors allow" default:"0"`
	Memory     Memory `key:"memory" doc:"above it new connections are refused: bytes like 512MiB, auto is the control group's, off is none" default:"auto"`
	Handshakes Count  `key:"handshakes" doc:"handshakes at once; above it the oldest one ends; 0 is no bound" default:"auto"`
}

// Limits bound what the clients of one listener take.
type Limits struct {
	Flows      Count `key:"flows" doc:"connections and associations at once; 0 is no bound" default:"0"`
	FlowsPerIP Count `key:"flows_per_ip" doc:"of one client, at once; 0 is no bound" default:"0"`
	Handshakes Count `key:"handshakes" doc:"handshakes at once; above it the oldest one ends; auto is that of the process, 0 is no bound" default:"auto"`
	RatePerIP  Count `key:"rate_per_ip" doc:"new connections a second of one client; 0 is no bound" default:"0"`
	Prefix4    Bits4 `key:"prefix4" doc:"how many bits of an IPv4 address make one client" default:"32"`
	Prefix6    Bits6 `key:"prefix6" doc:"how many bits of an IPv6 address make one client" default:"64"`
}

// Count is a number of things; Auto is one that is found out.
type Count int32

// Memory is a number of bytes; 0 is no bound, Auto the control group's.
type Memory int64

// Auto is the word auto.
const Auto = -1

// Bits4 and Bits6 are lengths of a prefix.
type (
	Bits4 uint8
	Bits6 uint8
)

// Process holds the unsafe switches that stand at the top of the file.
type Process struct {
	NoSandbox   Switch      `key:"no_sandbox" doc:"keep the privileges of the start, all files and all system calls once listening" default:"off"`
	AdminTCP    Switch      `key:"admin_tcp" doc:"let admin be a TCP address: whoever reaches it controls the process" default:"off"`
	ClockOffset ClockOffset `key:"clock_offset" doc:"shift the clock by a duration, or by what @FILE says, read again each second"`
}

// Listener is one address that clients connect to.
type Listener struct {
	Pos           Pos
	Name          string         `key:"name" doc:"what the log calls it (default: carrier-port)" as:"label"`
	From          Address        `key:"from" doc:"where clients connect: tls://:443, tcp://127.0.0.1:5432, dtls://:5684, tls://unix:PATH, tls://systemd:NAME" as:"from"`
	ProxyProtocol ProxyAccept    `key:"proxy_protocol" doc:"PROXY headers, v1 or v2, that say who a client is: off, optional or require; each, where clients share the proxy's UDP port" default:"off"`
	Limits        Limits         `key:"limits" doc:"what clients may take"`
	ProxyTrust    []netip.Prefix `key:"proxy_trust" doc:"proxies whose PROXY headers are believed"`
	ECH           []string       `key:"ech" doc:"PEM files with ECH keys (RFC 9934): the PRIVATE KEY and its ECHCONFIG" as:"file"`
	Routes        []Route        `key:"routes" doc:"what becomes of a connection: the first that matches wins, none refuses"`
	Peek          time.Duration  // timeouts.peek as it stands at the listener
}

// Route is what becomes of the connections that Match takes.
type Route struct {
	Pos      Pos
	Name     string   // listener's name, and the route's number where there are several
	Pattern  string   // offload, encrypt, bridge, pass-through, plain or reject
	Notes    []string // what was decided for the user, said in the start line
	Match    Match    `key:"match" doc:"which connections this route takes; every criterion named must hold"`
	Action   Action   `key:"action" doc:"terminate, splice (pass through undecrypted) or reject" default:"terminate"`
	Cert     []string `key:"cert" doc:"our certificates: PEM files or folders, picked by SNI and key type" as:"file"`
	Key      []string `key:"key" doc:"keys that are neither in a certificate's file nor beside it" as:"key"`
	PSK      string   `key:"psk" doc:"file with the pre-shared keys of DTLS clients, IDENTITY:HEX a line; who is listed may pass" as:"file"`
	Staple   Switch   `key:"staple" doc:"send OCSP responses about our own certificates, fetched ahead" default:"on"`
	TLSA     TLSA     `key:"tlsa" doc:"hold a new certificate back until DNS has its TLSA records: off or hold" default:"off"`
	SPIFFE   Address  `key:"spiffe" doc:"socket of a SPIFFE agent, which gives our certificate and the anchors, on both sides: unix:/run/spire/agent.sock" as:"workload"`
	ALPN     ALPN     `key:"alpn" doc:"protocols offered to clients, or mirror: what the server chooses of the client's offer"`
	TLS      TLS      `key:"tls" doc:"versions, ciphers and groups towards clients; alone a preset: modern, intermediate or old"`
	Client   Client   `key:"client" doc:"who may connect"`
	Allow    Allow    `key:"allow" doc:"all, or rules over the client's certificate of which one must hold"`
	To       To       `key:"to" doc:"the server or servers: an address, a list of them, or a map"`
	Pool     Pool     // how one of the servers is chosen; To is the first one
	Timeouts Timeouts `key:"timeouts" doc:"deadlines of each stage"`
	Unsafe   Unsafe   `key:"unsafe" doc:"dangerous switches; each is announced at start"`
}

// Match selects connections. An empty list does not ask.
type Match struct {
	SNI    []Name         `key:"sni" doc:"server names; * is one label, ** one or more, \"\" a hello without SNI"`
	ALPN   []string       `key:"alpn" doc:"protocols, one of which the client must offer" as:"protocol"`
	TLS    *bool          `key:"tls" doc:"whether the client begins with a ClientHello"`
	Client []netip.Prefix `key:"client" doc:"addresses the client connects from"`
	If     string         `key:"if" doc:"an expression over what is known before a handshake, which must be true" as:"choice"`
}

// Name is a pattern of match.sni; the empty one matches only a hello without SNI.
type Name struct {
	Text    string
	Pattern name.Pattern // zero where Text is empty
}

// Client says who may connect.
type Client struct {
	Auth    Auth           `key:"auth" doc:"require, optional or none: a client certificate (default: require once ca is there)"`
	From    []netip.Prefix `key:"from" doc:"addresses that may connect; always required beside anything else"`
	CA      []string       `key:"ca" doc:"trust anchors for client certificates: PEM files, or system" as:"anchor"`
	Profile Profile        `key:"profile" doc:"floors for keys and signatures: webpki, private or strict" default:"private"`
	Pin     []string       `key:"pin" doc:"SHA-256 of accepted public keys: sha256//BASE64, or hexadecimal" as:"pin"`

	CRL        []string   `key:"crl" doc:"files with certificate revocation lists of the CAs" as:"file"`
	Revocation Revocation `key:"revocation" doc:"fetch CRLs and OCSP responses: off, soft (go on where none is to be had) or hard" default:"off"`
	CT         CT         `key:"ct" doc:"Certificate Transparency: off, report or require" default:"off"`
	AIA        Switch     `key:"aia" doc:"fetch intermediates that the client leaves out from where its certificate says" default:"off"`
}

// Allow is the decision who of the verified clients may pass.
type Allow struct {
	Set   bool
	All   bool
	Rules []Rule
}

// Rule holds where all that it names holds. Empty fields do not ask.
type Rule struct {
	Pos   Pos
	DNS   string `key:"dns" doc:"a dNSName of the certificate" as:"dns"`
	URI   string `key:"uri" doc:"a URI of the certificate; * is one path segment, ** at the end one or more" as:"uri"`
	CN    string `key:"cn" doc:"the subject's common name" as:"text"`
	OU    string `key:"ou" doc:"one of the subject's organizational units" as:"text"`
	Email string `key:"email" doc:"an rfc822Name of the certificate" as:"text"`
	IPSAN string `key:"ip_san" doc:"an iPAddress of the certificate: an address or a CIDR" as:"prefix"`
	SPKI  string `key:"spki" doc:"SHA-256 of the public key: sha256//BASE64, or hexadecimal" as:"pin"`
	If    string `key:"if" doc:"an expression over the certificate, the address, the names and the time, which must be true" as:"rule"`
}

// To is the server's side.
type To struct {
	Pos     Pos
	Addr    Address  `key:"addr" main:"true" as:"to" doc:"where the server is: tcp://127.0.0.1:8080, tls://db.example:5432, udp://127.0.0.1:5683, tcp://unix:PATH; of several, a list, whose items may be maps"`
	Name    string   `key:"name" doc:"the name that the server's certificate must have, or its SPIFFE ID (default: the host of addr)" as:"host"`
	SNI     string   `key:"sni" doc:"the server name to send, \"\" for none (default: name)" as:"sni"`
	Cert    []string `key:"cert" doc:"our certificate towards the server" as:"file"`
	Key     []string `key:"key" doc:"its key, where it is neither in the same file nor beside it" as:"key"`
	SPIFFE  Address  `key:"spiffe" doc:"socket of a SPIFFE agent, which gives our certificate towards the server and the anchors (default: that of the route)" as:"workload"`
	PSK     string   `key:"psk" doc:"file with the pre-shared key for a DTLS server, IDENTITY:HEX a line" as:"file"`
	PSKID   string   `key:"psk_identity" doc:"which line of to.psk is ours (default: the only one)" as:"identity"`
	ALPN    ALPN     `key:"alpn" doc:"protocols offered to the server"`
	TLS     TLS      `key:"tls" doc:"versions, ciphers and groups towards the server; alone a preset"`
	CA      []string `key:"ca" doc:"trust anchors for the server's certificate: PEM files, or system (default: system)" as:"anchor"`
	Profile Profile  `key:"profile" doc:"floors for keys and signatures: webpki, private or strict (default: webpki with the system's anchors, else private)"`
	Pin     []string `key:"pin" doc:"SHA-256 of accepted public keys: sha256//BASE64, or hexadecimal" as:"pin"`

	CRL           []string       `key:"crl" doc:"files with certificate revocation lists of the CAs" as:"file"`
	Revocation    Revocation     `key:"revocation" doc:"fetch CRLs and OCSP responses: off, soft (go on where none is to be had) or hard" default:"off"`
	DANE          DANE           `key:"dane" doc:"TLSA records in DNS: off, prefer (where there are any) or require" default:"off"`
	CT            CT             `key:"ct" doc:"Certificate Transparency: off, report or require" default:"off"`
	AIA           Switch         `key:"aia" doc:"fetch intermediates that the server leaves out from where its certificate says" default:"off"`
	ProxyProtocol ProxySend      `key:"proxy_protocol" doc:"tell the server who the client is by a PROXY header: off, v1 or v2, which tells of its TLS too; v2_each, ahead of every datagram" default:"off"`
	Reach         []netip.Prefix `key:"reach" doc:"loopback, link-local and private addresses that may be fetched from where a certificate names them"`
}

// ProxyAccept says whether clients begin with a PROXY header.
type ProxyAccept string

// ProxySend is the version of the PROXY header that the server gets.
type ProxySend string

// TLS are the parameters of one side, TLS or DTLS. The zero Min and Max are the
// preset's; Record is of TLS alone, MTU and CID of DTLS.
type TLS struct {
	Preset  Preset   `key:"preset" main:"true" doc:"modern, intermediate or old, as Mozilla's guidelines name them" default:"intermediate"`
	Min     Version  `key:"min" doc:"lowest version: 1.0, 1.1, 1.2 or 1.3"`
	Max     Version  `key:"max" doc:"highest version"`
	Ciphers []string `key:"ciphers" doc:"cipher suites up to TLS 1.2, by their OpenSSL or IANA names" as:"cipher"`
	Groups  []string `key:"groups" doc:"key exchange groups: X25519MLKEM768, X25519, P-256, P-384, ..." as:"group"`
	Tickets Switch   `key:"tickets" doc:"resume sessions by tickets" default:"on"`
	Record  Switch   `key:"record" doc:"under TLS 1.3, carry on after the handshake with a record layer of our own; off leaves it to crypto/tls" default:"on"`
	MTU     MTU      `key:"mtu" doc:"under DTLS, the largest datagram of a handshake, in bytes" default:"1200"`
	CID     Switch   `key:"cid" doc:"under DTLS, connection IDs, by which a client is known whose address changes" default:"on"`
}

// Timeouts of one route; 0 means none.
type Timeouts struct {
	Peek      time.Duration `key:"peek" doc:"for the whole ClientHello" default:"5s"`
	Handshake time.Duration `key:"handshake" doc:"for each TLS handshake" default:"10s"`
	Dial      time.Duration `key:"dial" doc:"for the connection to the server" default:"5s"`
	Idle      time.Duration `key:"idle" doc:"silence in both directions; 5m for datagrams" default:"1h"`
	Linger    time.Duration `key:"linger" doc:"silence after one end has finished" default:"30s"`
	Total     time.Duration `key:"total" doc:"the whole flow" default:"0"`
	Drain     time.Duration `key:"drain" doc:"for open flows once the process is told to end" default:"30s"`
}

// Unsafe holds the unsafe switches of a route.
type Unsafe struct {
	NoVerify   Switch `key:"no_verify" doc:"take any certificate from the server" default:"off"`
	KeyLog     string `key:"keylog" doc:"write the session keys to this file: whoever reads it reads the traffic" as:"file"`
	KeyMode    Switch `key:"key_mode" doc:"take key files that everybody can read" default:"off"`
	Truncation Switch `key:"truncation" doc:"pass on a connection cut off without close_notify as a proper end" default:"off"`
	OpenFrom   Switch `key:"open_from" doc:"let any host use our client certificate through a plain listener" default:"off"`
}

// Switch is on or off; in the file also true and false.
type Switch bool

// Address is CARRIER://WHERE.
type Address struct {
	Text    string // as written
	Carrier string // tcp, tls, udp or dtls
	Host    string // empty in FROM: all addresses, both families
	Port    uint16
	Unix    string // path of a unix socket
	Systemd string // name of a socket that systemd hands over
}

// LogFormat is text or json.
type LogFormat string

// LogLevel is debug, info, warn or error.
type LogLevel string

// Action is what a route does.
type Action string

// Auth says whether clients show a certificate.
type Auth string

// Profile names a set of floors.
type Profile string

// Preset names a set of versions, ciphers and groups.
type Preset string

// Revocation says how far revocation is looked for.
type Revocation string

// DANE says whether TLSA records authenticate the server.
type DANE string

// TLSA says whether a new certificate of ours waits for its TLSA records.
type TLSA string

// CT says what becomes of a certificate that is in too few logs.
type CT string

// Part is one of a whole, from 0 to 1.
type Part float64

// MTU is a number of bytes.
type MTU uint16

// Version is a TLS version as on the wire, 0x0301 to 0x0304; 0 is unset.
type Version uint16

const (
	FormatText LogFormat = "text"
	FormatJSON LogFormat = "json"

	LevelDebug LogLevel = "debug"
	LevelInfo  LogLevel = "info"
	LevelWarn  LogLevel = "warn"
	LevelError LogLevel = "error"

	Terminate Action = "terminate"
	Splice    Action = "splice"
	Reject    Action = "reject"

	AuthRequire  Auth = "require"
	AuthOptional Auth = "optional"
	AuthNone     Auth = "none"

	ProfileWebPKI  Profile = "webpki"
	ProfilePrivate Profile = "private"
	ProfileStrict  Profile = "strict"

	// Off is the empty word of each of these.
	RevocationOff  Revocation = ""
	RevocationSoft Revocation = "soft"
	RevocationHard Revocation = "hard"

	DANEOff     DANE = ""
	DANEPrefer  DANE = "prefer"
	DANERequire DANE = "require"

	TLSAOff  TLSA = ""
	TLSAHold TLSA = "hold"

	ProxyOff      ProxyAccept = ""
	ProxyOptional ProxyAccept = "optional"
	ProxyRequire  ProxyAccept = "require"
	ProxyEach     ProxyAccept = "each" // every datagram has one, and each client an association of its own

	ProxyNone   ProxySend = ""
	ProxyV1     ProxySend = "v1"
	ProxyV2     ProxySend = "v2"
	ProxyV2Each ProxySend = "v2_each" // ahead of every datagram

	CTOff     CT = ""
	CTReport  CT = "report"
	CTRequire CT = "require"

	PresetModern       Preset = "modern"
	PresetIntermediate Preset = "intermediate"
	PresetOld          Preset = "old"
)

// ALPN is a list of protocols, or mirror.
type ALPN struct {
	Mirror bool
	Protos []string // nil: the extension is ignored
}

// ClockOffset shifts the clock by a fixed duration or by what a file says.
type ClockOffset struct {
	By   time.Duration
	File string
}

// Resolve says, as curl's option does, to which address a host and port go.
type Resolve struct {
	Host string
	Port uint16
	Addr netip.Addr
}

// Pos is where something was said: a file's line, or a flag.
type Pos struct {
	File      string
	Line, Col int
	Flag      string // "--to-tls-min", or "FROM" and "TO"
}

// Warning is something an operator should know, said at start.
type Warning struct {
	Pos  Pos
	Text string
}
