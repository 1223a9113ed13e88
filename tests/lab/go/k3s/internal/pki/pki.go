// Package pki keeps a server's authorities and certificates in the files that k3s keeps them in.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour
	renewBefore   = 90 * 24 * time.Hour
)

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	PEM  []byte
}

// EnsureAuthority loads path.crt and path.key, or makes them when both are missing.
func EnsureAuthority(path, name string) (*Authority, error) {
	cert, err := os.ReadFile(path + ".crt")
	if errors.Is(err, fs.ErrNotExist) {
		return newAuthority(path, name)
	}
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(path + ".key")
	if err != nil {
		return nil, err
	}
	parsed, err := parse(cert)
	if err != nil {
		return nil, fmt.Errorf("%s.crt: %w", path, err)
	}
	signer, err := parseKey(key)
	if err != nil {
		return nil, fmt.Errorf("%s.key: %w", path, err)
	}
	return &Authority{parsed, signer, cert}, nil
}

func newAuthority(path, name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s@%d", name, now.Unix())},
		NotBefore:             now.Add(-time.Hour), // another machine's clock may be a little behind
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	text := encode(der)
	if err := writeKey(path+".key", key); err != nil {
		return nil, err
	}
	return &Authority{cert, key, text}, Write(path+".crt", text, 0o644)
}

// Request is what a certificate says.
type Request struct {
	Name   string
	Groups []string
	Server bool // fit for a server as well as for a client
	SANs   []string
}

// Sign makes a certificate, followed by its authority's, for a public key.
func (a *Authority) Sign(r Request, public crypto.PublicKey) ([]byte, error) {
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: r.Name, Organization: r.Groups},
		NotBefore:    a.Cert.NotBefore,
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if r.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, san := range r.SANs {
		if ip := net.ParseIP(san); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, san)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, public, a.Key)
	if err != nil {
		return nil, err
	}
	return append(encode(der), a.PEM...), nil
}

// SignRequest makes a certificate for the key of a PEM certificate request; the names in the request count for nothing.
func (a *Authority) SignRequest(csr []byte, r Request) ([]byte, error) {
	block, _ := pem.Decode(csr)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("the body is no PEM certificate request")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, err
	}
	return a.Sign(r, request.PublicKey)
}

// EnsureLeaf makes path.crt and path.key unless there is a pair of this authority that says just this and is not about
// to end.
func (a *Authority) EnsureLeaf(path string, r Request) error {
	if a.holds(path+".crt", r) {
		if _, err := os.Stat(path + ".key"); err == nil {
			return nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert, err := a.Sign(r, key.Public())
	if err != nil {
		return err
	}
	if err := writeKey(path+".key", key); err != nil {
		return err
	}
	return Write(path+".crt", cert, 0o644)
}

func (a *Authority) holds(path string, r Request) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	cert, err := parse(text)
	if err != nil || cert.CheckSignatureFrom(a.Cert) != nil || time.Until(cert.NotAfter) < renewBefore {
		return false
	}
	var sans []string
	for _, ip := range cert.IPAddresses {
		sans = append(sans, ip.String())
	}
	sans = append(sans, cert.DNSNames...)
	wanted := slices.Clone(r.SANs)
	slices.Sort(sans)
	slices.Sort(wanted)
	return slices.Equal(sans, wanted) && cert.Subject.CommonName == r.Name && slices.Equal(cert.Subject.Organization, r.Groups)
}

// EnsureSigningKey makes the RSA key that signs service account tokens, unless it is there.
func EnsureSigningKey(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return Write(path, pem.EncodeToMemory(block), 0o600)
}

// Write replaces a file as a whole, and makes its directory.
func Write(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	draft := path + ".new"
	if err := os.WriteFile(draft, content, mode); err != nil {
		return err
	}
	if err := os.Chmod(draft, mode); err != nil { // the umask does not decide
		return err
	}
	return os.Rename(draft, path)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return Write(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

func parse(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block in it")
	}
	return x509.ParseCertificate(block.Bytes)
}

func parseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block in it")
	}
	return x509.ParseECPrivateKey(block.Bytes)
}

func encode(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func serial() *big.Int {
	bytes := make([]byte, sha256.Size/2)
	if _, err := rand.Read(bytes); err != nil {
		panic(err) // the kernel's generator does not fail
	}
	return new(big.Int).SetBytes(bytes)
}
