package scenario

import (
	"os"
	"path/filepath"
	"testing"
)

func consoleOf(t *testing.T, text string) Console {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vm.log")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := ReadConsole(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A counter that fell back and caught up again before anybody looked is a loss: the newest number alone shows nothing.
func TestGuestHistory(t *testing.T) {
	for _, tc := range []struct {
		name, a, b string
		want       int
	}{
		{"one life on two nodes", "RESUME 0\r\nACK 1\r\nACK 2\r\n", "RESUME 2\r\nACK 3\r\n", 0},
		{"the last acknowledgement was not printed", "RESUME 0\r\nACK 1\r\n", "RESUME 2\r\nACK 3\r\n", 0},
		{"fell back and caught up", "RESUME 0\r\nACK 1\r\nACK 2\r\nRESUME 1\r\nACK 2\r\nACK 3\r\n", "", 1},
		{"fell back on the other node", "RESUME 0\r\nACK 1\r\nACK 2\r\n", "RESUME 0\r\nACK 1\r\nACK 2\r\nACK 3\r\n", 2},
		{"the guest complains", "RESUME 0\r\nBAD slot 3: torn\r\n", "", 1},
	} {
		if got := GuestHistory(consoleOf(t, tc.a), consoleOf(t, tc.b)); len(got) != tc.want {
			t.Errorf("%s: %v, want %d complaints", tc.name, got, tc.want)
		}
	}
}
