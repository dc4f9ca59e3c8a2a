package pause

import "testing"

func TestWanted(t *testing.T) {
	for line, want := range map[string]bool{
		"/usr/local/bin/perry-sidecar\x00sandbox\x00":          true,
		"x\x00sandbox\x00":                                     true,
		"/usr/local/bin/perry-sidecar\x00workspace\x00":        false,
		"/usr/local/bin/perry-sidecar\x00sandbox\x00more\x00":  false,
		"/usr/local/bin/perry-sidecar\x00other\x00sandbox\x00": false,
		"perry-sidecar\x00":                                    false,
		"sandbox\x00":                                          false,
		"":                                                     false,
	} {
		if got := Wanted([]byte(line)); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}
