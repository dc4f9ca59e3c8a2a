package main

import (
	"fmt"
	"strings"
)

// explainRefusal turns what a coordinator said when it refused this node into a sentence that says what to do.
// remedy is how this node gets another key.
// permanent means that asking again with the same key is useless. The words are those of headscale v0.29
// (hscontrol/types, hscontrol/auth), of Tailscale's service and of testcontrol; none of them has codes.
func explainRefusal(said, remedy string) (sentence string, permanent bool) {
	text := strings.ToLower(said)
	has := func(words ...string) bool {
		for _, word := range words {
			if strings.Contains(text, word) {
				return true
			}
		}
		return false
	}
	switch {
	case has("already used", "already been used"):
		return "The auth key was used before; " + remedy + ".", true
	case has("key") && has("expired"):
		return "The auth key has expired; " + remedy + ".", true
	case has("authkey", "auth key", "pre-auth", "preauth", "invalid key", "api key") && has("not found", "invalid", "unknown", "not valid", "does not exist", "failed to"):
		return "The coordinator does not know the auth key; " + remedy + ".", true
	case has("tag"):
		return fmt.Sprintf("The coordinator does not allow this node's tags (%s); allow them in its policy (tagOwners).", oneLine(said)), true
	case has("unauthorized", "401", "not authorized", "forbidden", "403"):
		return "The coordinator refused the auth key; " + remedy + ".", true
	default:
		return fmt.Sprintf("The coordinator refused this node (%s); look into its log.", oneLine(said)), false
	}
}

// oneLine makes foreign words fit into a sentence, with no key among them.
func oneLine(text string) string {
	fields := strings.Fields(text)
	for i, field := range fields {
		if strings.Contains(field, "hskey-") || strings.Contains(field, "tskey-") {
			fields[i] = "[key]"
		}
	}
	joined := strings.Join(fields, " ")
	if len(joined) > 200 {
		joined = strings.ToValidUTF8(joined[:200], "") + "…"
	}
	return strings.TrimRight(joined, ".")
}
