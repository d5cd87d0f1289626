package etcdstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"duet/witness/register"
)

// Keys. Everything but the header lies below its generation: what is set aside stays as it is and is never read.
//
//	duet-witness/header                          the cluster, the generation and its number
//	duet-witness/GENERATION/site/NAME            register.Site.Encode of an enrolment
//	duet-witness/GENERATION/owner/SITE           name of the enrolment that a site id belongs to
//	duet-witness/GENERATION/start/INSTANCE       marker of the last start of one witness process
const (
	prefix    = "duet-witness/"
	headerKey = prefix + "header"
)

func (b *bound) key(kind, name string) string {
	return prefix + hex.EncodeToString(b.generation[:]) + "/" + kind + "/" + name
}

// found is what one linearizable read saw.
type found struct {
	bound         *bound
	site          register.Site
	siteRevision  int64 // of the key; 0: absent
	siteOwner     string
	ownerRevision int64
}

var errStaleHeader = errors.New("the header or the marker of this start has changed")

// read sees the site of an enrolment. Nothing was written yet, so it is repeated until ctx ends.
func (s *Store) read(ctx context.Context, name string, siteID *register.ID) (found, error) {
	for {
		f, err := s.readOnce(ctx, name, siteID)
		if err == nil || errors.Is(err, register.ErrCorrupt) {
			return f, err
		}
		if errors.Is(err, errStaleHeader) && ctx.Err() == nil {
			continue
		}
		if !pause(ctx, readPause) {
			return found{}, noAnswer(err)
		}
	}
}

func (s *Store) readOnce(ctx context.Context, name string, siteID *register.ID) (found, error) {
	b, err := s.bind(ctx)
	if err != nil {
		return found{}, err
	}
	ops := []clientv3.Op{clientv3.OpGet(b.key("site", name))}
	if siteID != nil {
		ops = append(ops, clientv3.OpGet(b.key("owner", hex.EncodeToString(siteID[:]))))
	}
	resp, err := s.transact(ctx, b, []clientv3.Cmp{b.current()}, ops)
	if err != nil {
		return found{}, err
	}
	if !resp.Succeeded {
		s.bound.CompareAndSwap(b, nil)
		return found{}, errStaleHeader
	}
	f := found{bound: b}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		f.siteRevision = kvs[0].ModRevision
		if f.site, err = register.DecodeSite(kvs[0].Value); err != nil {
			return f, fmt.Errorf("site record of %q: %w", name, err)
		}
	}
	if siteID != nil {
		if kvs := resp.Responses[1].GetResponseRange().Kvs; len(kvs) > 0 {
			f.siteOwner, f.ownerRevision = string(kvs[0].Value), kvs[0].ModRevision
		}
	}
	return f, nil
}

// write stores after in the place of what before saw, and says whether nobody had been faster. An error of the
// transaction means that it took effect or not: no answer.
func (s *Store) write(ctx context.Context, name string, siteID *register.ID, before found, after register.Site) (bool, error) {
	b := before.bound
	siteKey := b.key("site", name)
	ifs := []clientv3.Cmp{b.current(), clientv3.Compare(clientv3.ModRevision(siteKey), "=", before.siteRevision)}
	thens := []clientv3.Op{clientv3.OpPut(siteKey, string(after.Encode()))}
	if siteID != nil {
		ownerKey := b.key("owner", hex.EncodeToString(siteID[:]))
		ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(ownerKey), "=", before.ownerRevision))
		if before.siteOwner != name {
			thens = append(thens, clientv3.OpPut(ownerKey, name))
		}
		if old := before.site.ID; old != *siteID && old != (register.ID{}) {
			thens = append(thens, clientv3.OpDelete(b.key("owner", hex.EncodeToString(old[:]))))
		}
	}
	resp, err := s.transact(ctx, b, ifs, thens)
	if err != nil {
		return false, noAnswer(err)
	}
	return resp.Succeeded, nil
}

// current compares the header: a generation that was ended by another process is not served any more.
func (b *bound) current() clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(headerKey), "=", b.revision)
}

func (s *Store) transact(ctx context.Context, b *bound, ifs []clientv3.Cmp, thens []clientv3.Op) (*clientv3.TxnResponse, error) {
	before := s.seen.Load()
	resp, err := s.kv.Txn(ctx).If(ifs...).Then(thens...).Commit()
	if err != nil {
		return nil, err
	}
	return resp, s.observe(before, b, resp.Header)
}

// observe notices an etcd that went back under a running process: an answer that is linearizable can never be older
// than one that was received before its request was sent. What it says is not used; the next call binds again.
func (s *Store) observe(before int64, b *bound, header *etcdserverpb.ResponseHeader) error {
	if header.Revision < before || header.ClusterId != b.cluster {
		s.bound.CompareAndSwap(b, nil)
		return fmt.Errorf("answers from revision %d of cluster %x, after revision %d of cluster %x", header.Revision, header.ClusterId, before, b.cluster)
	}
	s.raise(header.Revision)
	return nil
}

func (s *Store) raise(revision int64) {
	for {
		seen := s.seen.Load()
		if revision <= seen || s.seen.CompareAndSwap(seen, revision) {
			return
		}
	}
}

const countPage = 1000 // sites of one read: some 340 KB

// Count says how many sites are bound and how many registers are kept, page by page: not one moment, which nobody needs.
func (s *Store) Count(ctx context.Context) (sites, registers int, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	b, err := s.bind(ctx)
	if err != nil {
		return 0, 0, noAnswer(err)
	}
	from, end := b.key("site", ""), clientv3.GetPrefixRangeEnd(b.key("site", ""))
	for {
		resp, err := s.kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(countPage))
		if err != nil {
			return 0, 0, noAnswer(err)
		}
		for _, kv := range resp.Kvs {
			sites++
			registers += max(0, len(kv.Value)-register.SiteRecordSize) / register.RecordSize
		}
		if !resp.More {
			return sites, registers, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

func pause(ctx context.Context, span time.Duration) bool {
	timer := time.NewTimer(span)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
