package main

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func idsOf(t testing.TB, name string) (uid, gid uint32) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	id := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
	return id(u.Uid), id(u.Gid)
}

// digests are the MD5 sums of the numbers from 1, as SQL makes them: 5 MB that
// either side can compute.
func digests() string {
	var b strings.Builder
	for i := 1; i <= rows; i++ {
		h := md5.Sum(strconv.AppendInt(nil, int64(i), 10))
		b.WriteString(hex.EncodeToString(h[:]) + "\n")
	}
	return b.String()
}

const rows = 160000

func startPostgres(t *testing.T) *daemon {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	initdb := asUser(t, "postgres", exec.Command(tool(t, "initdb"), "-D", dir, "-U", "postgres", "--auth=trust", "--no-sync", "--locale=C", "-E", "UTF8"), dir)
	if out, err := executeCmd(t, nil, initdb); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	d := startDaemon(t, syscall.SIGINT, func(port string) *exec.Cmd {
		return asUser(t, "postgres", exec.Command(tool(t, "postgres"), "-D", dir, "-h", "127.0.0.1", "-p", port, "-c", "unix_socket_directories=", "-F"))
	})
	eventually(t, "PostgreSQL to be ready", func() bool {
		_, err := execute(t, "", "pg_isready", "-h", "127.0.0.1", "-p", d.port)
		return err == nil
	})
	return d
}

// psql speaks plain TCP, as an app that knows nothing of TLS.
func psql(t *testing.T, addr, query string) (string, error) {
	t.Helper()
	cmd := exec.Command(tool(t, "psql"), "-h", "127.0.0.1", "-p", portOf(t, addr), "-U", "postgres", "-XAtc", query)
	cmd.Env = append(os.Environ(), "PGSSLMODE=disable", "PGGSSENCMODE=disable", "PGCONNECT_TIMEOUT=10")
	return executeCmd(t, nil, cmd)
}

func TestPostgresThroughTunnel(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	u := startTunnel(t, server.addr)
	if got, err := psql(t, u.near.Addr(""), "select 6 * 7"); err != nil || got != "42\n" {
		t.Fatalf("%v: %s", err, got)
	}
	u.check(t)
	got, err := psql(t, u.near.Addr(""), fmt.Sprintf("select md5(i::text) from generate_series(1, %d) i", rows))
	if err != nil || got != digests() {
		t.Errorf("a large result: %v, %d bytes", err, len(got))
	}
	stranger := u.enter(t, "stranger.example")
	if got, err := psql(t, stranger.Addr(""), "select 1"); err == nil {
		t.Errorf("a stranger got in: %s", got)
	}
	if r := u.far.Reason("client_not_allowed"); r.Text("fault") != "client" || !strings.Contains(r.Text("err"), "stranger.example") {
		t.Errorf("%v", r)
	}
	if r := stranger.Reason("server_rejected_our_certificate"); r.Text("fault") != "server" {
		t.Errorf("%v", r)
	}
}

func startMariaDB(t *testing.T) *daemon {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	as := func(cmd *exec.Cmd) *exec.Cmd { return asUser(t, "mysql", cmd, dir) }
	install := as(exec.Command(tool(t, "mariadb-install-db"), "--no-defaults", "--datadir="+dir, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"))
	if out, err := executeCmd(t, nil, install); err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	return startDaemon(t, syscall.SIGTERM, func(port string) *exec.Cmd {
		// A relative socket: the whole path may be longer than a socket's can be.
		return as(exec.Command(tool(t, "mariadbd"), "--no-defaults", "--datadir="+dir, "--bind-address=127.0.0.1", "--port="+port,
			"--socket=mariadb.sock", "--pid-file=mariadb.pid", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"))
	})
}

func mariadb(t *testing.T, addr, query string) (string, error) {
	t.Helper()
	return execute(t, "", "mariadb", "--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", portOf(t, addr), "-u", "root", "--skip-ssl", "-N", "-B", "-e", query)
}

// MariaDB speaks first: the tunnel must dial without waiting for the client.
func TestMariaDBThroughTunnel(t *testing.T) {
	t.Parallel()
	server := startMariaDB(t)
	u := startTunnel(t, server.addr)
	if got, err := mariadb(t, u.near.Addr(""), "SELECT 1"); err != nil || got != "1\n" {
		t.Fatalf("%v: %s", err, got)
	}
	u.check(t)
	got, err := mariadb(t, u.near.Addr(""), fmt.Sprintf("SELECT MD5(seq) FROM mysql.seq_1_to_%d", rows))
	if err != nil || got != digests() {
		t.Errorf("a large result: %v, %d bytes", err, len(got))
	}
}
