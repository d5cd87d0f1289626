package membership

// Message travels between the two nodes inside one session; the transport tags it with the session
// (protocol.md section 5.2). MarshalMessage and ParseMessage are the wire form.
type Message interface{ message() }

type (
	// Hello is the first message of a session: the sender's whole record.
	Hello struct{ Record Record }

	// Join: I am outdated and everything here is stopped (R12). Ep is the epoch it recorded.
	Join struct{ Ep, High Epoch }

	// Prepare names the tuple that both will commit (R14); in R27 it founds the site.
	Prepare struct {
		Site  ID
		Tuple Prepared
	}

	// PreparedMsg answers Prepare (R15).
	PreparedMsg struct{ Ep Epoch }

	// Commit makes the prepared tuple the record (R16, R16b).
	Commit struct{ Ep Epoch }

	// BeatMsg carries a fresh nonce; BeatAck repeats it (R11). Both tell committed and prepared epoch.
	BeatMsg struct {
		Nonce    Nonce
		Ep, Prep Epoch
	}
	// BeatAck is the answer.
	BeatAck struct {
		Nonce    Nonce
		Ep, Prep Epoch
	}
)

func (Hello) message()       {}
func (Join) message()        {}
func (Prepare) message()     {}
func (PreparedMsg) message() {}
func (Commit) message()      {}
func (BeatMsg) message()     {}
func (BeatAck) message()     {}
