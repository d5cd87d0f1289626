package store_test

import (
	"path/filepath"
	"testing"

	"duet/witness/store"
	"duet/witness/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Medium {
		path := filepath.Join(t.TempDir(), "registers.db")
		open := func(t *testing.T, fresh bool) storetest.Opened {
			s, _, err := store.Open(store.Config{Path: path, Machine: store.Machine{ID: "here"}, NewIdentity: fresh})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return storetest.Opened{Store: s, Close: func() { s.Close() }}
		}
		return storetest.Medium{
			Open:        func(t *testing.T) storetest.Opened { return open(t, false) },
			NewIdentity: func(t *testing.T) storetest.Opened { return open(t, true) },
		}
	})
}
