// Package probe is a block client that knows what it was promised: it writes numbered blocks to an NBD export, notes
// every acknowledgement with its time outside the node, and can say afterwards whether anything acknowledged is
// missing, older than it should be, torn, or answered with an error.
//
// It is the oracle of the lab's scenarios, so it shares no code with the mirror: its own NBD client, its own block
// format. Each block carries the sequence number of the write, its own block number and a CRC over all of it; a
// block may hold what was acknowledged last for it or any later write that was issued (unknown outcome), nothing
// else. Only the loss of power of every node that held the data (History.Losses) lets it fall back to what was flushed
// before, as with any disk: then what was written since the last flush may be missing or torn. When the connection breaks, the probe connects again and repeats the write in doubt with the same number,
// as a guest's driver would.
//
// The log has one line an event: "I seq block" issued, "A seq block unix_ns latency_us" acknowledged,
// "F seq unix_ns" everything up to seq was flushed, "E text" an error answered by the server, "R" reconnected.
package probe

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

// BlockSize is the unit of the mirror and of the oracle.
const BlockSize = 4096

// reconnectEvery paces connecting while nobody listens.
const reconnectEvery = 50 * time.Millisecond

const blockMagic = 0x64756574_70726f62 // "duetprob"

// Config is one run of the writer.
type Config struct {
	Socket, Export string
	Blocks         int           // how many blocks from the start of the export are used
	Interval       time.Duration // between two writes
	FlushEvery     int           // a flush after so many writes
	First          uint64        // first sequence number
	Seed           uint64        // of the order of blocks
}

// Write writes until ctx ends. Nothing but a full log or the end of ctx stops it; errors are logged and gone past.
func Write(ctx context.Context, cfg Config, log *os.File) error {
	random := rand.New(rand.NewPCG(cfg.Seed, cfg.First))
	w := writer{cfg: cfg, log: log}
	defer w.drop()
	buf := make([]byte, BlockSize)
	tick := time.NewTicker(cfg.Interval)
	defer tick.Stop()
	for seq := cfg.First; ctx.Err() == nil; seq++ {
		block := random.IntN(cfg.Blocks)
		fill(buf, seq, uint32(block))
		if _, err := fmt.Fprintf(log, "I %d %d\n", seq, block); err != nil {
			return err
		}
		started := time.Now()
		if !w.until(ctx, func(c *Client) error { return c.Write(buf, int64(block)*BlockSize) }) {
			break
		}
		now := time.Now()
		if _, err := fmt.Fprintf(log, "A %d %d %d %d\n", seq, block, now.UnixNano(), now.Sub(started).Microseconds()); err != nil {
			return err
		}
		if cfg.FlushEvery > 0 && seq%uint64(cfg.FlushEvery) == 0 {
			if !w.until(ctx, (*Client).Flush) {
				break
			}
			if _, err := fmt.Fprintf(log, "F %d %d\n", seq, time.Now().UnixNano()); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}

type writer struct {
	cfg    Config
	log    *os.File
	client *Client
	cancel func()
}

// until repeats one request until the server acknowledged it; false when ctx ended first.
func (w *writer) until(ctx context.Context, request func(*Client) error) bool {
	for ctx.Err() == nil {
		if w.client == nil && !w.connect(ctx) {
			continue
		}
		err := request(w.client)
		if err == nil {
			return true
		}
		var answered *ServerError
		if errors.As(err, &answered) && ctx.Err() == nil {
			fmt.Fprintf(w.log, "E %v\n", err)
		}
		w.drop()
	}
	return false
}

func (w *writer) connect(ctx context.Context) bool {
	c, err := Dial(w.cfg.Socket, w.cfg.Export)
	if err != nil {
		select {
		case <-ctx.Done():
		case <-time.After(reconnectEvery):
		}
		return false
	}
	w.client = c
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	w.cancel = func() { stop() }
	fmt.Fprintln(w.log, "R")
	return true
}

func (w *writer) drop() {
	if w.client == nil {
		return
	}
	w.cancel()
	_ = w.client.Close() // the outcome of what is in flight is unknown in any case
	w.client = nil
}

func fill(buf []byte, seq uint64, block uint32) {
	random := rand.New(rand.NewPCG(seq, uint64(block)))
	for i := 0; i < len(buf); i += 8 {
		binary.LittleEndian.PutUint64(buf[i:], random.Uint64())
	}
	binary.LittleEndian.PutUint64(buf[0:], blockMagic)
	binary.LittleEndian.PutUint64(buf[8:], seq)
	binary.LittleEndian.PutUint32(buf[16:], block)
	binary.LittleEndian.PutUint32(buf[BlockSize-4:], crc32.ChecksumIEEE(buf[:BlockSize-4]))
}

// Content is what one block of the export holds.
type Content struct {
	Seq  uint64 // 0: never written
	Torn bool   // neither zero nor one whole write of this very block
}

// ReadAll reads the blocks of an export.
func ReadAll(socket, export string, blocks int) ([]Content, error) {
	c, err := Dial(socket, export)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	contents := make([]Content, blocks)
	buf := make([]byte, BlockSize)
	for i := range contents {
		if err := c.Read(buf, int64(i)*BlockSize); err != nil {
			return nil, fmt.Errorf("block %d: %w", i, err)
		}
		contents[i] = parse(buf, uint32(i))
	}
	return contents, nil
}

func parse(buf []byte, block uint32) Content {
	if strings.Trim(string(buf), "\x00") == "" {
		return Content{}
	}
	ok := binary.LittleEndian.Uint64(buf) == blockMagic &&
		binary.LittleEndian.Uint32(buf[16:]) == block &&
		binary.LittleEndian.Uint32(buf[BlockSize-4:]) == crc32.ChecksumIEEE(buf[:BlockSize-4])
	return Content{Seq: binary.LittleEndian.Uint64(buf[8:]), Torn: !ok}
}

// History is what the logs of one export say, over all its writers in order.
type History struct {
	Acked  map[int]uint64 // block → highest acknowledged sequence
	Issued map[int]uint64 // block → highest issued sequence
	Last   uint64         // highest issued sequence
	Acks   []Ack          // in order
	Errors []string       // errors answered by the server

	// Losses are the moments at which the last node that held the data lost its power, in order. They are known
	// before the logs that go past them are loaded.
	Losses []time.Time

	soft     map[int]bool   // blocks written since the last flush
	durable  map[int]uint64 // block → highest sequence that was flushed
	tearable map[int]bool   // blocks that a loss may have torn, until they are written again
	lost     int            // of Losses: applied
}

// Ack is one acknowledgement.
type Ack struct {
	At      time.Time
	Latency time.Duration
}

// Load adds a log to the history. A last line without its end was cut by a power loss and counts for nothing.
func (h *History) Load(log io.Reader) error {
	if h.Acked == nil {
		h.Acked, h.Issued = map[int]uint64{}, map[int]uint64{}
		h.soft, h.durable, h.tearable = map[int]bool{}, map[int]uint64{}, map[int]bool{}
	}
	r := bufio.NewReader(log)
	for {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := h.add(strings.TrimSuffix(line, "\n")); err != nil {
			return err
		}
	}
}

func (h *History) add(line string) error {
	var seq uint64
	var block int
	var at, latency int64
	switch {
	case strings.HasPrefix(line, "I "):
		if _, err := fmt.Sscanf(line, "I %d %d", &seq, &block); err != nil {
			return fmt.Errorf("log line %q: %w", line, err)
		}
		h.Issued[block] = max(h.Issued[block], seq)
		h.Last = max(h.Last, seq)
		h.soft[block] = true
	case strings.HasPrefix(line, "A "):
		if _, err := fmt.Sscanf(line, "A %d %d %d %d", &seq, &block, &at, &latency); err != nil {
			return fmt.Errorf("log line %q: %w", line, err)
		}
		h.losses(at)
		h.Acked[block] = max(h.Acked[block], seq)
		h.soft[block] = true
		delete(h.tearable, block)
		h.Acks = append(h.Acks, Ack{time.Unix(0, at), time.Duration(latency) * time.Microsecond})
	case strings.HasPrefix(line, "F "):
		if _, err := fmt.Sscanf(line, "F %d %d", &seq, &at); err != nil {
			return fmt.Errorf("log line %q: %w", line, err)
		}
		h.losses(at)
		for block := range h.soft {
			h.durable[block] = h.Acked[block]
		}
		clear(h.soft)
	case strings.HasPrefix(line, "E "):
		h.Errors = append(h.Errors, line[2:])
	}
	return nil
}

// losses applies the losses of power before a moment: what was not flushed counts as not acknowledged, and may be torn.
func (h *History) losses(before int64) {
	for h.lost < len(h.Losses) && h.Losses[h.lost].UnixNano() < before {
		h.lost++
		for block := range h.soft {
			h.Acked[block] = h.durable[block]
			h.tearable[block] = true
		}
		clear(h.soft)
	}
}

// Lost compares the history with what the export holds: one sentence for each block that breaks the promise.
func (h *History) Lost(contents []Content) []string {
	var lost []string
	h.losses(math.MaxInt64)
	for block, c := range contents {
		acked, issued := h.Acked[block], h.Issued[block]
		switch {
		case c.Torn && h.tearable[block]:
		case c.Torn:
			lost = append(lost, fmt.Sprintf("block %d is torn or foreign (sequence %d)", block, c.Seq))
		case c.Seq < acked:
			lost = append(lost, fmt.Sprintf("block %d holds write %d, but %d was acknowledged", block, c.Seq, acked))
		case c.Seq > issued:
			lost = append(lost, fmt.Sprintf("block %d holds write %d, which was never issued", block, c.Seq))
		}
	}
	return lost
}

// Stall is the longest wait for an acknowledgement among those that ended in [from, to].
func (h *History) Stall(from, to time.Time) time.Duration {
	var longest time.Duration
	for _, a := range h.Acks {
		if !a.At.Before(from) && !a.At.After(to) {
			longest = max(longest, a.Latency)
		}
	}
	return longest
}

// Gap is the longest time without an acknowledgement since from, up to the newest acknowledgement; 0 when there was none
// since. Unlike Stall it begins at from, whether or not a write was under way.
func (h *History) Gap(from time.Time) time.Duration {
	var longest time.Duration
	last := from
	for _, a := range h.Acks {
		if a.At.Before(from) {
			continue
		}
		longest = max(longest, a.At.Sub(last))
		last = a.At
	}
	return longest
}
