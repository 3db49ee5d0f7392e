package activities_test

import (
	"strings"
	"testing"
	"time"

	"postroad/activities"
	"postroad/contract"
)

// applyTo applies a control to acme.
func (b *bundle) applyTo(in contract.ApplyInput) contract.ApplyResult {
	b.t.Helper()
	in.Subscriber = "acme"
	result, err := b.Apply(b.t.Context(), in)
	check(b.t, err)
	return result
}

func TestApplySeek(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(properties(20)...)
	b.create("https://consumer.example/", nil)
	b.exec(`UPDATE feeds SET floor_sequence = 3`)
	version := int64(0)
	for _, c := range []struct {
		name   string
		in     contract.ApplyInput
		cursor int64
	}{
		{"to a sequence", contract.ApplyInput{Sequence: new(int64(7))}, 7},
		{"to the head", contract.ApplyInput{Sequence: new(int64(20))}, 20},
		{"to the beginning", contract.ApplyInput{To: contract.SeekBeginning}, 3},
		{"to now", contract.ApplyInput{To: contract.SeekNow}, 20},
		{"to a time after all", contract.ApplyInput{Time: time.Now().Format(time.RFC3339Nano)}, 20},
	} {
		c.in.RequestID, c.in.Kind = c.name, contract.ControlSeek
		first := b.applyTo(c.in)
		version++
		if row := b.row(); first.Version != version || first.Refused != "" || row.Cursor != c.cursor {
			t.Errorf("%s: %+v, cursor %d, want version %d and cursor %d", c.name, first, row.Cursor, version, c.cursor)
		}
		b.exec(`UPDATE runs SET cursor = 11`)
		if again := b.applyTo(c.in); again != first || b.row().Cursor != 11 {
			t.Errorf("%s, repeated: %+v, cursor %d", c.name, again, b.row().Cursor)
		}
	}
}

// TestApplySeekRefused: what is not clear, or cannot be done, is refused in one
// sentence and changes nothing.
func TestApplySeekRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(properties(20)...)
	b.create("https://consumer.example/", nil)
	b.exec(`UPDATE feeds SET floor_sequence = 3`)
	for name, c := range map[string]struct {
		in   contract.ApplyInput
		text string
	}{
		"no target":           {contract.ApplyInput{}, "one target"},
		"two targets":         {contract.ApplyInput{Sequence: new(int64(5)), To: contract.SeekNow}, "one target"},
		"a negative sequence": {contract.ApplyInput{Sequence: new(int64(-1))}, "0 or more"},
		"no time":             {contract.ApplyInput{Time: "yesterday"}, "RFC 3339"},
		"no place":            {contract.ApplyInput{To: "end"}, "beginning or now"},
		"above the head":      {contract.ApplyInput{Sequence: new(int64(21))}, "above the head"},
		"below the floor":     {contract.ApplyInput{Sequence: new(int64(2))}, "no longer kept"},
		"a time to come":      {contract.ApplyInput{Time: time.Now().Add(time.Hour).Format(time.RFC3339)}, "future"},
		"a time below it":     {contract.ApplyInput{Time: "2000-01-01T00:00:00Z"}, "no longer kept"},
	} {
		c.in.RequestID, c.in.Kind = name, contract.ControlSeek
		result := b.applyTo(c.in)
		if !strings.Contains(result.Refused, c.text) || strings.Contains(result.Refused, "acme") || result.Version != 0 {
			t.Errorf("%s: %+v, want a sentence with %q", name, result, c.text)
		}
	}
	if row := b.row(); row.Cursor != 0 || row.DesiredVersion != 0 {
		t.Errorf("%+v", row)
	}
	result, err := b.Apply(t.Context(), contract.ApplyInput{Subscriber: "nobody", Kind: contract.ControlSeek, To: contract.SeekNow})
	if err != nil || !result.Gone {
		t.Errorf("nobody: %+v, %v", result, err)
	}
}

func TestApplyReplay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	events := properties(20)
	for i := range events {
		if i%4 == 0 {
			events[i].ResourceName = "Member"
		}
	}
	b.publish(events...)
	b.create("https://consumer.example/", nil)
	b.exec(`UPDATE runs SET cursor = 20`)
	in := contract.ApplyInput{
		RequestID: "1", Kind: contract.ControlReplay, FromSequence: new(int64(5)), ToSequence: new(int64(14)),
		FromTime: "2000-01-01T00:00:00Z", ToTime: time.Now().Add(time.Hour).Format(time.RFC3339), ResourceNames: []string{"Member"},
	}
	first := b.applyTo(in)
	if again := b.applyTo(in); first.Version != 1 || first.Refused != "" || again != first {
		t.Errorf("%+v, repeated %+v", first, again)
	}
	replays, err := b.store.Replays(t.Context(), "acme", 0, 10)
	check(t, err)
	if len(replays) != 1 {
		t.Fatalf("%d replays: %+v", len(replays), replays)
	}
	if r := replays[0]; r.After != 4 || r.Through != 14 || r.Total != 3 || r.Source != "signal" || r.Selection.ResourceNames[0] != "Member" {
		t.Errorf("%+v", r)
	}
}

func TestApplyReplayRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(properties(20)...)
	b.create("https://consumer.example/", nil)
	b.exec(`UPDATE runs SET cursor = 20`)
	b.exec(`UPDATE feeds SET floor_sequence = 3`)
	from := func(n int64) contract.ApplyInput { return contract.ApplyInput{FromSequence: &n} }
	between := func(n, m int64) contract.ApplyInput {
		return contract.ApplyInput{FromSequence: &n, ToSequence: &m}
	}
	of := func(names ...string) contract.ApplyInput {
		return contract.ApplyInput{FromSequence: new(int64(5)), ResourceNames: names}
	}
	for name, c := range map[string]struct {
		in   contract.ApplyInput
		text string
	}{
		"no bounds":            {contract.ApplyInput{}, "needs bounds"},
		"no time":              {contract.ApplyInput{ToTime: "today"}, "toTime"},
		"reversed":             {between(9, 8), "before it begins"},
		"above the head":       {from(21), "head"},
		"below the floor":      {from(3), "no longer kept"},
		"nothing that matches": {of("Office"), "nothing to replay"},
		"a name of NUL":        {of("a\x00"), "resourceNames"},
		"a star within":        {of("a*b"), "resourceNames"},
		"nothing missed":       {contract.ApplyInput{Missed: true}, "nothing to replay"},
		"missed, and bounds":   {contract.ApplyInput{Missed: true, ToSequence: new(int64(9))}, "no bounds"},
	} {
		c.in.RequestID, c.in.Kind = name, contract.ControlReplay
		result := b.applyTo(c.in)
		if !strings.Contains(result.Refused, c.text) || strings.Contains(result.Refused, "acme") || result.Version != 0 {
			t.Errorf("%s: %+v, want a sentence with %q", name, result, c.text)
		}
	}
	if row := b.row(); row.DesiredVersion != 0 {
		t.Errorf("%+v", row)
	}
}

// TestApplyReplayCountsNotForEver: signals behind it have their turn.
func TestApplyReplayCountsNotForEver(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *activities.Config) { c.CountReplay = time.Nanosecond })
	b.publish(properties(20)...)
	b.create("https://consumer.example/", nil)
	in := contract.ApplyInput{RequestID: "1", Kind: contract.ControlReplay, FromSequence: new(int64(1))}
	if result := b.applyTo(in); !strings.Contains(result.Refused, "takes too long") {
		t.Errorf("%+v", result)
	}
	if result := setupOn(t, b.url).applyTo(in); result.Version != 1 {
		t.Errorf("once there is time: %+v", result)
	}
}
