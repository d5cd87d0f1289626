package site

import "testing"

// Wiring that could fence the wrong node, or cut what makes the evidence, is refused with the code that it would become
// (hardware.md section 4.5).
func TestWiringIsRefused(t *testing.T) {
	for code, spoil := range map[string]func(*Document){
		"FENCE-5031": func(d *Document) { d.Nodes.B.Outlets[0].Outlet = 2 },
		"FENCE-5032": func(d *Document) { d.Nodes.B.BMC.Address = d.Nodes.A.BMC.Address },
		"FENCE-5036": func(d *Document) { d.PDU.Feeds = []Feed{{Outlet: 3, What: "witness"}} },
		"FENCE-5038": func(d *Document) { d.Nodes.A.PSUs = 3 },
	} {
		d := answers()
		spoil(&d)
		wrong := Validate(d, "netio")
		if len(wrong) != 1 || wrong[0].Code != code {
			t.Errorf("%s: %v", code, wrong)
		}
	}
	d := answers()
	d.Fencing = &Fencing{SharedPSUs: true}
	for _, f := range Validate(d, "netio") {
		if f.Code != "FENCE-5037" {
			t.Errorf("shared supplies: %+v", f)
		}
	}
	d.Nodes.A.Outlets, d.Nodes.B.Outlets, d.PDU = nil, nil, nil
	if wrong := Validate(d, "netio"); len(wrong) != 0 {
		t.Errorf("shared supplies without outlets: %v", wrong)
	}
	d = answers()
	d.PDU.Feeds = []Feed{{Outlet: 0, What: "coffee"}}
	d.Nodes.A.PSUs = -1
	if wrong := Validate(d, "netio"); len(wrong) != 3 {
		t.Errorf("%d wrong fields: %v", len(wrong), wrong)
	}
	d = answers()
	d.PDU.Feeds, d.PDU.Numbers, d.Nodes.A.PSUs, d.Fencing = []Feed{{Outlet: 8, What: "switch"}}, map[string]uint16{"switch.base": 0}, 2, &Fencing{Strict: true}
	if err := Validate(d, "netio").Err(); err != nil {
		t.Error(err)
	}
	copied := d.clone()
	copied.PDU.Feeds[0].Outlet, copied.PDU.Numbers["switch.base"], copied.Fencing.Strict = 1, 7, false
	if d.PDU.Feeds[0].Outlet != 8 || d.PDU.Numbers["switch.base"] != 0 || !d.Fencing.Strict {
		t.Error("a clone shares what it holds")
	}
}
