package explore

// Worlds are the small worlds by name. Complete ones are visited whole in the budget of `make explore`; deep ones to
// a depth; wide ones are for walks.
var Worlds = map[string]*Params{}

func world(p Params) *Params {
	Worlds[p.Name] = &p
	return &p
}

// Complete, Deep and Wide are the worlds of each engine, in the order in which they are run.
var (
	Complete = []*Params{
		world(Params{
			Name: "founding", Start: FromFresh, Eager: true, Witness: true, Link: true, NoRun: true,
			Budget: Budget{Crash: 1, Cut: 1, Session: 2},
		}),
		world(Params{
			Name: "node-dies", Start: FromPaired, Eager: true, Witness: true,
			Budget: Budget{Crash: 1, Cut: 1, Write: 1},
		}),
		world(Params{
			Name: "link-lost", Start: FromPaired, Eager: true, Witness: true, Link: true,
			Budget: Budget{Cut: 1, Session: 1},
		}),
		world(Params{
			Name: "power-cycle", Start: FromPowerless, Eager: true, Witness: true, Link: true,
			Budget: Budget{Session: 1},
		}),
		world(Params{
			Name: "rejoin", Start: FromSolo, Eager: true, Witness: true, Link: true,
			Budget: Budget{Session: 1, Write: 1},
		}),
		world(Params{
			Name: "cut-in-join", Start: FromSolo, Eager: true, Witness: true, Link: true, NoRun: true,
			Budget: Budget{Cut: 1, Session: 2},
		}),
		world(Params{
			Name: "leave", Start: FromPaired, Eager: true, Witness: true, Link: true, NoRun: true,
			Budget: Budget{Leave: 1, Move: 1, Session: 1},
		}),
		world(Params{
			Name: "leave-cut", Start: FromPaired, Eager: true, Witness: true, NoRun: true,
			Budget: Budget{Leave: 1, Crash: 1, Cut: 1},
		}),
		world(Params{
			Name: "move", Start: FromPaired, Eager: true, Witness: true,
			Budget: Budget{Move: 1, Crash: 1, Cut: 1},
		}),
		world(Params{
			Name: "drop", Start: FromPaired, Eager: true, Witness: true, NoRun: true,
			Budget: Budget{Arbiter: 1, Crash: 1, Cut: 1},
		}),
		world(Params{
			Name: "fence-mode", Start: FromFence, Eager: true, Link: true, NoRun: true,
			Budget: Budget{Crash: 1, Cut: 1, Session: 1},
		}),
		world(Params{
			Name: "admit", Start: FromFence, Eager: true, Witness: true, NoRun: true,
			Budget: Budget{Witness: 1, Crash: 1, Cut: 1},
		}),
		world(Params{
			Name: "emptied", Start: FromPaired, Eager: true, Witness: true, NoRun: true,
			Budget: Budget{Witness: 1, Dup: 1, Empty: 1, Cut: 1},
		}),
		world(Params{
			Name: "evidence", Start: FromFence, Eager: true, Link: true,
			Budget: Budget{Cut: 2, Session: 1},
		}),
		world(Params{
			Name: "ghost", Large: true, Start: FromPaired, Eager: true, Witness: true, Link: true, NoRun: true,
			Budget: Budget{Arbiter: 1, Witness: 1, Cut: 1, Session: 1, Ghost: 1},
		}),
		world(Params{
			Name: "document", Start: FromPaired, Eager: true, Witness: true, NoRun: true,
			Budget: Budget{Doc: 1, Crash: 1, Cut: 1},
		}),
		world(Params{
			Name: "copies", Start: FromPaired, Eager: true, Witness: true, NoRun: true,
			Budget: Budget{Copies: 3, Crash: 1, Cut: 1},
		}),
		world(Params{
			Name: "copies-link", Start: FromPaired, Eager: true, Witness: true, Link: true, NoRun: true,
			Budget: Budget{Copies: 2, Cut: 1, Session: 1},
		}),
		world(Params{
			Name: "leg", Start: FromPaired, Eager: true, Witness: true, NoRun: true,
			Budget: Budget{LegLoss: 1, Cut: 1, Write: 1},
		}),
		world(Params{
			Name: "join-leg", Start: FromSolo, Eager: true, Witness: true, Link: true, NoRun: true,
			Budget: Budget{LegLoss: 1, Session: 2, Write: 1},
		}),
		world(Params{
			Name: "resolve-leg", Start: FromPaired, Eager: true, Link: true, NoRun: true,
			Budget: Budget{LegLoss: 1, Cut: 1, Session: 1, Write: 1},
		}),
		world(Params{
			Name: "force", Start: FromPowerless, Eager: true, Witness: true, NoRun: true,
			Budget: Budget{Force: 1},
		}),
		world(Params{
			Name: "lease-end", Start: FromPaired, Clocks: true, Eager: true, Witness: true, NoFence: true,
			Budget: Budget{Cut: 1, Skew: 1},
		}),
		world(Params{
			Name: "lease", Start: FromPaired, Clocks: true, Beats: true, OneBeat: true, OneSide: true, Eager: true, Witness: true, NoFence: true,
			Budget: Budget{Cut: 1, Skew: 1},
		}),
	}
	Deep = []*Params{
		world(Params{
			Name: "clocks", Start: FromPaired, Clocks: true, Beats: true, OneBeat: true, OneSide: true, Eager: true, Witness: true,
			Link: true, Budget: Budget{Crash: 1, Cut: 1, Unknown: 1, Session: 1, Skew: 1},
		}),
		world(Params{
			Name: "effects", Start: FromPaired, Witness: true, Link: true,
			Budget: Budget{Crash: 1, Cut: 2, Dup: 1, Unknown: 1, Restart: 1, Write: 1, Session: 2},
		}),
	}
	Wide = []*Params{
		world(Params{
			Name: "walk-cuts", Start: FromPaired, Eager: true, Witness: true, Link: true, NoRun: true,
			Budget: Budget{Cut: 4, Session: 12},
		}),
		world(Params{
			Name: "walk-yields", Start: FromPaired, Eager: true, Witness: true, Link: true, NoRun: true,
			Budget: Budget{Cut: 5, Session: 12, Leave: 3},
		}),
		world(Params{
			Name: "walk-votes", Start: FromPaired, Eager: true, Witness: true, Link: true, NoRun: true,
			Budget: Budget{Crash: 3, Cut: 6, Dup: 2, Restart: 1, Session: 12},
		}),
		world(Params{
			Name: "walk-lease", Start: FromPaired, Clocks: true, Beats: true, Eager: true, Witness: true, NoFence: true,
			Budget: Budget{Cut: 1, Dup: 4, Crash: 1, Skew: 1},
		}),
		world(Params{
			Name: "walk", Start: FromPaired, Witness: true, Link: true, Beats: true,
			Budget: Budget{Crash: 5, Cut: 5, Dup: 4, Unknown: 2, Late: 1, Write: 8, Restart: 3, Session: 16, Ghost: 2},
		}),
		world(Params{
			Name: "walk-clocks", Start: FromPaired, Clocks: true, Beats: true, Witness: true, Link: true,
			Budget: Budget{Crash: 5, Cut: 5, Dup: 4, Unknown: 2, Late: 1, Write: 8, Restart: 3, Session: 16, Skew: 1, Ghost: 1},
		}),
		world(Params{
			Name: "walk-fresh", Start: FromFresh, Clocks: true, Beats: true, Witness: true, Link: true,
			Budget: Budget{Crash: 4, Cut: 4, Dup: 2, Unknown: 1, Write: 4, Restart: 2, Session: 12, Skew: 1},
		}),
		world(Params{
			Name: "walk-orders", Start: FromPaired, Witness: true, Link: true, Beats: true,
			Budget: Budget{
				Crash: 4, Cut: 5, Dup: 3, Unknown: 2, Late: 1, Write: 6, Restart: 3, Session: 14, Ghost: 1,
				Leave: 3, Move: 4, Arbiter: 2, Witness: 2, Empty: 1, Doc: 4, LegLoss: 2,
			},
		}),
		world(Params{
			Name: "walk-arbiter", Start: FromPaired, Eager: true, Witness: true, Link: true, Beats: true, NoRun: true,
			Budget: Budget{Crash: 3, Cut: 6, Dup: 4, Restart: 1, Session: 14, Ghost: 2, Leave: 2, Move: 2, Arbiter: 3, Witness: 3, Empty: 1},
		}),
		world(Params{
			Name: "walk-fence", Start: FromFence, Clocks: true, Beats: true, Witness: true, Link: true,
			Budget: Budget{
				Crash: 4, Cut: 5, Dup: 3, Unknown: 2, Late: 1, Write: 6, Restart: 3, Session: 12, Skew: 1,
				Leave: 1, Move: 2, Arbiter: 2, Witness: 2,
			},
		}),
		world(Params{
			Name: "walk-legs", Start: FromPaired, Clocks: true, Beats: true, Eager: true, Witness: true, Link: true, NoRun: true, NoFence: true,
			Budget: Budget{Cut: 3, Dup: 1, Write: 6, Restart: 2, Session: 6, Skew: 1, LegLoss: 3, Move: 1},
		}),
		world(Params{
			Name: "walk-copies", Start: FromPaired, Eager: true, Witness: true, Link: true, Beats: true,
			Budget: Budget{Crash: 3, Cut: 5, Dup: 2, Restart: 2, Session: 12, Copies: 8, Move: 2, Leave: 1, Doc: 1},
		}),
		world(Params{
			Name: "walk-force", Start: FromPaired, Eager: true, Witness: true, Link: true, Beats: true, NoRun: true,
			Budget: Budget{Crash: 6, Cut: 4, Dup: 1, Write: 4, Restart: 1, Session: 10, Force: 3, Arbiter: 1},
		}),
	}
)
