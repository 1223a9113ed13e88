package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
)

func TestAuthoritiesAndLeavesStayUntilTheyMustChange(t *testing.T) {
	dir := t.TempDir()
	made, err := EnsureAuthority(filepath.Join(dir, "ca"), "lab")
	if err != nil {
		t.Fatal(err)
	}
	again, err := EnsureAuthority(filepath.Join(dir, "ca"), "other")
	if err != nil || string(again.PEM) != string(made.PEM) {
		t.Fatal("another authority", err)
	}
	leaf := filepath.Join(dir, "leaf")
	read := func(a *Authority, r Request) string {
		t.Helper()
		if err := a.EnsureLeaf(leaf, r); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(leaf + ".crt")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	asked := Request{Name: "k3s", Server: true, SANs: []string{"b", "192.0.2.1", "a"}}
	first := read(again, asked)
	if read(again, asked) != first {
		t.Error("made anew without need")
	}
	if read(again, Request{Name: "k3s", Server: true, SANs: []string{"a", "b"}}) == first {
		t.Error("kept although the names changed")
	}
	stranger, err := EnsureAuthority(filepath.Join(dir, "stranger"), "lab")
	if err != nil {
		t.Fatal(err)
	}
	if before := read(again, asked); read(stranger, asked) == before {
		t.Error("kept although the authority changed")
	}
	if info, err := os.Stat(leaf + ".key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Error("the key is not for its owner alone", err)
	}
}

func TestARequestProvesItsKeyAndNamesNothing(t *testing.T) {
	authority, err := EnsureAuthority(filepath.Join(t.TempDir(), "ca"), "lab")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"mine"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	signed, err := authority.SignRequest(text, Request{Name: "system:node:a", Groups: []string{"system:nodes"}})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := parse(signed)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.Cert)
	_, err = cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil || cert.Subject.CommonName != "system:node:a" || len(cert.DNSNames) != 0 {
		t.Error(cert.Subject, cert.DNSNames, err)
	}
	if _, err := authority.SignRequest([]byte("nothing"), Request{}); err == nil {
		t.Error("anything is signed")
	}
}
