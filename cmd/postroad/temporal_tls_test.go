package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// certificate makes a certificate for both ends of a connection, its own
// authority, and returns the files of it and of its key.
func certificate(t *testing.T) (pair tls.Certificate, pool *x509.CertPool, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, text := range map[string][]byte{certFile: certPEM, keyFile: keyPEM} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return pair, pool, certFile, keyFile
}

// TestTemporalCredentials reaches a Temporal behind a door that wants a client
// certificate and an API key, as Temporal Cloud does.
func TestTemporalCredentials(t *testing.T) {
	t.Parallel()
	c := newClinic(t)
	c.run(nil, "migrate").want(t, ok)
	pair, pool, certFile, keyFile := certificate(t)
	plain := &http.Transport{Protocols: new(http.Protocols)}
	plain.Protocols.SetUnencryptedHTTP2(true)
	defer plain.CloseIdleConnections()
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: c.house.temporal})
	forward.Transport, forward.FlushInterval = plain, -1
	door := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer the-key" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	door.EnableHTTP2 = true
	door.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	door.StartTLS()
	defer door.Close()
	address := []string{"TEMPORAL_ADDRESS=" + strings.TrimPrefix(door.URL, "https://")}
	tlsOnly := append(slices.Clone(address), "TEMPORAL_TLS=true", "TEMPORAL_TLS_SERVER_CA_CERT_PATH="+certFile)
	withCert := append(slices.Clone(tlsOnly), "TEMPORAL_TLS_CLIENT_CERT_PATH="+certFile, "TEMPORAL_TLS_CLIENT_KEY_PATH="+keyFile)
	for _, test := range []struct {
		name    string
		environ []string
		want    string
	}{
		{"neither", address, "fail"},
		{"no certificate", append(slices.Clone(tlsOnly), "TEMPORAL_API_KEY=the-key"), "fail"},
		{"no key", withCert, "fail"},
		{"another key", append(slices.Clone(withCert), "TEMPORAL_API_KEY=another"), "fail"},
		{"both", append(slices.Clone(withCert), "TEMPORAL_API_KEY=the-key"), "ok"},
	} {
		worst, text := c.examine(failed, test.environ)
		if got := worst["temporal"]; got != test.want || (worst["namespace"] == "ok") != (test.want == "ok") {
			t.Errorf("%s: temporal is %s, namespace %q, want %s:\n%s", test.name, got, worst["namespace"], test.want, text)
		}
	}
}
