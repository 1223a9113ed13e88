package token

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"errors"
)

const (
	saltSize = 16
	rounds   = 4096
)

// Seal encrypts what only a holder of the password may read: salt, nonce and AES-GCM's text, one after the other.
func Seal(password string, plain []byte) ([]byte, error) {
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	sealer, err := cipherOf(password, salt)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, sealer.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return sealer.Seal(append(salt, nonce...), nonce, plain, nil), nil
}

// Open is Seal undone; an error if the password is another or the text was changed.
func Open(password string, sealed []byte) ([]byte, error) {
	if len(sealed) < saltSize {
		return nil, errors.New("sealed data is too short")
	}
	sealer, err := cipherOf(password, sealed[:saltSize])
	if err != nil {
		return nil, err
	}
	rest := sealed[saltSize:]
	if len(rest) < sealer.NonceSize() {
		return nil, errors.New("sealed data is too short")
	}
	return sealer.Open(nil, rest[:sealer.NonceSize()], rest[sealer.NonceSize():], nil)
}

func cipherOf(password string, salt []byte) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, password, salt, rounds, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
