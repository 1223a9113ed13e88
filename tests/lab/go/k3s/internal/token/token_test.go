package token

import (
	"bytes"
	"strings"
	"testing"
)

func TestForms(t *testing.T) {
	ca := []byte("a certificate")
	for text, want := range map[string]Token{
		"secret":                    {Password: "secret"},
		Format(ca, "server", "a:b"): {CAHash: Hash(ca), User: "server", Password: "a:b"},
		"abcdef.0123456789abcdef":   {Bootstrap: "abcdef.0123456789abcdef"},
		FormatBootstrap(ca, "abcdef.0123456789abcdef"): {CAHash: Hash(ca), Bootstrap: "abcdef.0123456789abcdef"},
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "K10abc::server:x", "K10" + Hash(ca) + "::nothing", "K10" + Hash(ca) + "::server:"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q is taken as %+v", text, got)
		}
	}
}

func TestTheHashPins(t *testing.T) {
	full, err := Parse(Format([]byte("one"), "server", "x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := full.Verify([]byte("one")); err != nil {
		t.Error(err)
	}
	if err := full.Verify([]byte("two")); err == nil || !strings.Contains(err.Error(), "does not match") {
		t.Error(err)
	}
	if err := (Token{Password: "x"}).Verify([]byte("two")); err != nil {
		t.Error("a short token pins nothing", err)
	}
}

func TestSealedDataOpensWithItsPasswordOnly(t *testing.T) {
	sealed, err := Seal("one", []byte("keys"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := Open("one", sealed); err != nil || string(plain) != "keys" {
		t.Errorf("%q, %v", plain, err)
	}
	if bytes.Contains(sealed, []byte("keys")) {
		t.Error("it can be read")
	}
	changed := bytes.Clone(sealed)
	changed[len(changed)-1] ^= 1
	for _, wrong := range []struct {
		password string
		text     []byte
	}{{"two", sealed}, {"one", changed}, {"one", sealed[:20]}, {"one", nil}} {
		if _, err := Open(wrong.password, wrong.text); err == nil {
			t.Errorf("%q opens %d bytes", wrong.password, len(wrong.text))
		}
	}
}

func TestRandomTokensHaveTheirForm(t *testing.T) {
	if _, _, ok := SplitBootstrap(Bootstrap()); !ok || len(Password()) != 32 || Password() == Password() {
		t.Error("not of the form")
	}
}
