package main

import "testing"

func TestRefusalsSayWhatToDo(t *testing.T) {
	for said, want := range map[string]struct {
		part      string
		permanent bool
	}{
		// headscale v0.29.0, heard.
		"authkey expired":      {"has expired", true},
		"authkey already used": {"used before", true},
		"invalid pre auth key": {"does not know the auth key", true},
		// testcontrol, and Tailscale's service as its issue threads quote it.
		"invalid authkey":                              {"does not know the auth key", true},
		"invalid key: unable to validate API key":      {"does not know the auth key", true},
		"requested tags [tag:x] are invalid":           {"tagOwners", true},
		"something new, with hskey-auth-abc-def in it": {"something new, with [key] in it", false},
	} {
		sentence, permanent := explainRefusal(said, Settings{}.remedy())
		if !contains(sentence, want.part) || permanent != want.permanent {
			t.Errorf("%q: %v, %s", said, permanent, sentence)
		}
		if contains(sentence, "hskey-") {
			t.Errorf("a key got through: %s", sentence)
		}
	}
}
