package core

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"duet/build/lab/control"
)

// The comparison of legs shares no code with the product: inside each node, through its file system and its drive
// with the drive's cache, a program of the lab reads every <pool>/<volume>/data with O_DIRECT and sums it. Reading the
// drive from outside beside a mounted file system would be unsafe.

// poolFolder is where legs live in a node.
const poolFolder = "/pool"

// legsTimeout bounds a comparison; demo volumes are at most 256 MiB.
const legsTimeout = 120 * time.Second

// differencesMax bounds how many differing MiB are named.
const differencesMax = 100

// legSum is what the digest program says of one leg.
type legSum struct {
	Volume string   `json:"volume"`
	Size   int64    `json:"size"`
	Sum    string   `json:"sum"`
	MiB    []string `json:"mib"` // 8 bytes of SHA-256 of each MiB
}

func (c *core) legs(ctx context.Context) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, legsTimeout)
	defer cancel()
	var sums [2]map[string]legSum
	var errs [2]error
	var wg sync.WaitGroup
	for i, node := range []string{"a", "b"} {
		wg.Go(func() { sums[i], errs[i] = c.sumLegs(ctx, node) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return compareLegs(sums[0], sums[1]), nil
}

func compareLegs(a, b map[string]legSum) control.Legs {
	out := control.Legs{Equal: true, Volumes: map[string]control.LegPair{}}
	for _, side := range []map[string]legSum{a, b} {
		for id := range side {
			pair := control.LegPair{SizeA: -1, SizeB: -1}
			x, inA := a[id]
			y, inB := b[id]
			if inA {
				pair.SizeA, pair.SumA = x.Size, x.Sum
			}
			if inB {
				pair.SizeB, pair.SumB = y.Size, y.Sum
			}
			pair.Equal = inA && inB && x.Size == y.Size && x.Sum == y.Sum
			for i := 0; inA && inB && i < max(len(x.MiB), len(y.MiB)) && len(pair.Diff) < differencesMax; i++ {
				if i >= len(x.MiB) || i >= len(y.MiB) || x.MiB[i] != y.MiB[i] {
					pair.Diff = append(pair.Diff, i)
				}
			}
			out.Volumes[id] = pair
			out.Equal = out.Equal && pair.Equal
		}
	}
	return out
}

// sumLegs runs the digest program in a node. It is the init's own executable under another name.
func (c *core) sumLegs(ctx context.Context, node string) (map[string]legSum, error) {
	_, body, err := c.living(node)
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	out, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	errOut, errW, err := os.Pipe()
	if err != nil {
		outW.Close()
		return nil, err
	}
	defer errOut.Close()
	var text, complaint []byte
	var wg sync.WaitGroup
	wg.Go(func() { text, _ = io.ReadAll(out) })
	wg.Go(func() { complaint, _ = io.ReadAll(errOut) })
	exit, err := body.Exec(ctx, []string{"/bin/bash", "-c", `exec -a "$0" /proc/1/exe "$1"`, digestName, poolFolder}, [3]*os.File{null, outW, errW})
	outW.Close()
	errW.Close()
	wg.Wait()
	if err != nil {
		return nil, err
	}
	if exit != 0 {
		return nil, fmt.Errorf("digest of the legs of node %s: exit code %d: %s", node, exit, strings.TrimSpace(string(complaint)))
	}
	var sums []legSum
	if err := json.Unmarshal(text, &sums); err != nil {
		return nil, fmt.Errorf("digest of the legs of node %s: %w", node, err)
	}
	byID := map[string]legSum{}
	for _, s := range sums {
		byID[s.Volume] = s
	}
	return byID, nil
}

// digestMain sums every leg below a pool folder and prints JSON.
func digestMain(args []string, stdout, stderr io.Writer) int {
	sums, err := digestPool(args)
	if err == nil {
		err = json.NewEncoder(stdout).Encode(sums)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func digestPool(args []string) ([]legSum, error) {
	if len(args) != 1 {
		return nil, errors.New("usage: " + digestName + " POOL")
	}
	files, err := filepath.Glob(filepath.Join(args[0], "*", "data"))
	if err != nil {
		return nil, err
	}
	sums := []legSum{}
	for _, f := range files {
		s, err := digestLeg(f)
		if err != nil {
			return nil, err
		}
		sums = append(sums, s)
	}
	return sums, nil
}

// mib is the unit in which differences are named.
const mib = 1 << 20

func digestLeg(path string) (legSum, error) {
	s := legSum{Volume: filepath.Base(filepath.Dir(path))}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return s, err
	}
	defer f.Close()
	whole := sha256.New()
	buf := alignedBuffer(mib)
	for {
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			whole.Write(buf[:n])
			part := sha256.Sum256(buf[:n])
			s.MiB = append(s.MiB, hex.EncodeToString(part[:8]))
			s.Size += int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return s, err
		}
	}
	s.Sum = hex.EncodeToString(whole.Sum(nil))
	return s, nil
}

// alignedBuffer is n bytes at a page boundary, as O_DIRECT wants.
func alignedBuffer(n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & (page - 1))
	return b[skip : skip+n : skip+n]
}
