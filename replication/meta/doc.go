// Package meta is what a leg knows about itself: its superblock (who it is, which history of writes it holds, what
// it was last told), its dirty map (which blocks the other leg does not certainly hold), its activity log (in which
// extents a crash may leave the legs different) and its checksum table. The bytes are fixed
// by docs/disk-format.md; this package is their only reader and writer.
//
// It promises that Change is atomic across a power cut: the two slots are written in turn, each with
// RWF_DSYNC, and never the newest valid one (rule O8), so that Open finds the old superblock or the new one and
// never a mixture. It promises that a map page that cannot be trusted makes its 28 extents dirty, never clean,
// and that a bit cleared by Acked stays set on disk until Covered (rule O6).
//
// Of the log it promises that whoever writes data between Begin and End finds the extents named by Hot after any crash,
// until Reconciled (rules O1, O2); that a log which cannot be read whole is told apart from one that names little, durably;
// and that a hot extent costs no write. Hot names at most as many extents as the log has slots, 256 by default.
//
// It refuses what it does not understand, before writing a byte: a foreign magic, a newer major version, an
// unknown incompatible feature, a meta object too small for its volume. An unknown read-only-compatible feature
// opens the leg read-only. Nothing is ever formatted by opening it, and Format refuses a leg that has a
// superblock. When both slots are valid the one with the higher sequence is judged alone: falling back to an
// older slot because the newer one has a feature this release does not know would be using a stale record.
//
// Inspect is for whoever only looks at a leg. It reads by the same code as Open, without the sync before and without a way to write.
//
// It decides nothing: states, generations and flags are set by the engine through Change, under the order rules
// of docs/disk-format.md section 5; only what concerns the log is its own. The one rule it adds is that fixed fields (ids
// of the leg, layout, sequence) are not the engine's to change.
//
// It fails as its device fails: an error of a write is final (block.ErrDead), the value in RAM stays what was
// last durable, and the caller must take the leg out. That the slot may hold the new value all the same is why
// nothing may be decided from memory after such an error.
//
// Of the checksum table it promises that a sum which is known is that of the block on the medium, after any crash, as long as
// sums are set between Begin and End; what it cannot promise that of is unknown. Legs with FeatureNoActivityLog or FeatureNoSums are
// refused: none was ever delivered. Rejected: two separate files for superblock and map. One object has one device, one death
// and one lock.
package meta
