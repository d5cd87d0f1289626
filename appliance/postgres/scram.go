package postgres

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"duet/appliance/site"
)

// scramRounds is what PostgreSQL 15 itself uses (SCRAM_DEFAULT_ITERATIONS).
const scramRounds = 4096

// verifier is what the server stores for a password (RFC 5803): it is computed here, so that no plain password reaches the
// server, its log, or its log of statements.
func verifier(password site.Secret) (string, error) {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails (crypto/rand)
	return verifierWith(password, salt)
}

func verifierWith(password site.Secret, salt []byte) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, string(password), salt, scramRounds, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	sum := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(sum(salted, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", scramRounds, b64(salt), b64(stored[:]), b64(sum(salted, "Server Key"))), nil
}
