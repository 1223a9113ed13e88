// Package token knows the forms of a k3s join token: K10<SHA-256 of the CA's PEM>::<user>:<password>, the bare password,
// and a bootstrap token <id>.<secret>, alone or behind K10<hash>::.
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"regexp"
	"strings"
)

const prefix = "K10"

var bootstrap = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)

// Token is a parsed token. User is empty in a bare password, Bootstrap in all but a bootstrap token.
type Token struct {
	CAHash, User, Password, Bootstrap string
}

// Parse refuses what is none of the known forms.
func Parse(s string) (Token, error) {
	var t Token
	if s == "" {
		return t, errors.New("token must not be empty")
	}
	rest, full := strings.CutPrefix(s, prefix)
	if full {
		hash, credentials, found := strings.Cut(rest, "::")
		if !found || len(hash) != hex.EncodedLen(sha256.Size) {
			return t, errors.New("invalid token CA hash length")
		}
		t.CAHash, rest = hash, credentials
	}
	if bootstrap.MatchString(rest) {
		t.Bootstrap = rest
		return t, nil
	}
	if !full {
		t.Password = rest
		return t, nil
	}
	user, password, found := strings.Cut(rest, ":")
	if !found || password == "" {
		return t, errors.New("invalid token format")
	}
	t.User, t.Password = user, password
	return t, nil
}

// Format is the full form.
func Format(ca []byte, user, password string) string {
	return prefix + Hash(ca) + "::" + user + ":" + password
}

// FormatBootstrap is the full form of a bootstrap token.
func FormatBootstrap(ca []byte, token string) string { return prefix + Hash(ca) + "::" + token }

// Hash is the part of a token that pins the CA.
func Hash(ca []byte) string {
	sum := sha256.Sum256(ca)
	return hex.EncodeToString(sum[:])
}

// Verify compares the CA that a server shows with the one the token pins; a short token pins none.
func (t Token) Verify(ca []byte) error {
	if hash := Hash(ca); t.CAHash != "" && t.CAHash != hash {
		return fmt.Errorf("token CA hash does not match the Cluster CA certificate hash: %s != %s", t.CAHash, hash)
	}
	return nil
}

// Authorize puts the token on a request, as `user` where the token is a password.
func (t Token) Authorize(request *http.Request, user string) {
	if t.Bootstrap != "" {
		request.Header.Set("Authorization", "Bearer "+t.Bootstrap)
		return
	}
	request.SetBasicAuth(user, t.Password)
}

// Password is a new random one: 32 hexadecimal digits.
func Password() string {
	bytes := make([]byte, 16)
	if _, err := rand.Read(bytes); err != nil {
		panic(err) // the kernel's generator does not fail
	}
	return hex.EncodeToString(bytes)
}

// Bootstrap is a new random bootstrap token.
func Bootstrap() string { return letters(6) + "." + letters(16) }

// SplitBootstrap is a bootstrap token's id and secret.
func SplitBootstrap(s string) (id, secret string, ok bool) {
	match := bootstrap.FindStringSubmatch(s)
	if match == nil {
		return "", "", false
	}
	return match[1], match[2], true
}

func letters(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	var out strings.Builder
	for range n {
		i, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			panic(err)
		}
		out.WriteByte(alphabet[i.Int64()])
	}
	return out.String()
}
