package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nines/pkg/ops"
)

// identityFile is a file in a store's folder. The database ignores it.
const identityFile = "identity"

// identity returns the name of the store in a folder, made when it is new. It
// goes with the samples: a folder that was emptied has another one.
func identity(dir string) (string, error) {
	path := filepath.Join(dir, identityFile)
	data, err := os.ReadFile(path)
	if err == nil {
		if id := strings.TrimSpace(string(data)); len(id) == 32 {
			return id, nil
		}
		return "", fmt.Errorf("%s does not hold 32 hex digits: remove it, and the store counts as a new one", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the store's identity: %w", err)
	}
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // it never fails (crypto/rand)
	id := hex.EncodeToString(raw[:])
	if err := ops.WriteFile(path, []byte(id+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("write the store's identity: %w", err)
	}
	return id, nil
}

// ID names the store for as long as its samples are the same ones.
func (db *DB) ID() string { return db.id }
