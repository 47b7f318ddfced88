package main

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caarlos0/env/v11"
)

// FuzzSettings: a setting takes any value, or the error has the setting's name. No secret is
// shown.
func FuzzSettings(f *testing.F) {
	params, err := env.GetFieldParams(new(Config))
	if err != nil {
		f.Fatal(err)
	}
	var names []string
	for _, p := range params {
		// These settings name files, which are not parsed here.
		if p.Key != "" && !strings.HasSuffix(p.Key, "_FILE") {
			names = append(names, p.Key)
		}
	}
	for i, value := range []string{"", "1", "-1", "1e309", "NaN", "5s", "2.5", "true", "unix:///x", "redis://:hunter2@h:1/0", "10.0.0.0/8,unix", "jwt,header", "\x00", "run"} {
		f.Add(uint8(i), value)
	}
	for i := range names {
		f.Add(uint8(i), "hunter2://user:hunter2@host")
	}
	f.Fuzz(func(t *testing.T, which uint8, value string) {
		name := names[int(which)%len(names)]
		cfg, errs := loadConfig(map[string]string{name: value})
		for _, err := range errs {
			if variable, text, ok := strings.Cut(err.Error(), ": "); !ok || text == "" || !strings.HasPrefix(variable, "QUEUE_") && !strings.HasPrefix(variable, "RATE_LIMIT_") && variable != name {
				t.Errorf("%s=%q: error %q does not name its setting", name, value, err)
			}
		}
		if secrets[name] == nil || len(value) < 8 || strings.Contains(errNotRedis.Error(), value) {
			return // short, or what an error says of any value
		}
		text := ""
		for _, err := range errs {
			text += err.Error()
		}
		if strings.Contains(text, value) {
			t.Errorf("%s: an error shows %q", name, value)
		}
		if len(errs) > 0 {
			return
		}
		for _, s := range effective(cfg) {
			if s.name == name && s.value == value && strings.Contains(value, "@") {
				t.Errorf("%s is printed as it is: %q", name, value)
			}
		}
	})
}

// FuzzSwitches: any SWITCHES_FILE is taken or refused as a whole, and sets nothing but the
// two settings.
func FuzzSwitches(f *testing.F) {
	for _, content := range []string{
		"RATE_LIMIT_SHADOW=true\nQUEUE_SHADOW=run\n", "# off\n\n", "QUEUE_URL=redis://evil", "QUEUE_SHADOW", "=", "QUEUE_SHADOW = assistant , run\r\n", "\x00",
	} {
		f.Add([]byte(content))
	}
	file := filepath.Join(f.TempDir(), "switches")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		environ := map[string]string{"SWITCHES_FILE": file, "QUEUE_URL": "redis://queue"}
		read, errs := readSwitches(environ)
		for name := range read {
			if environ[name] != read[name] && !slices.Contains(switchable, name) {
				t.Errorf("%q sets %s", content, name)
			}
		}
		_, err := loadSwitches(environ)
		if err == nil && len(errs) > 0 {
			t.Errorf("%q counts although it has mistakes: %v", content, errs)
		}
		if err != nil && !strings.Contains(err.Error(), "SWITCHES_FILE") && !strings.Contains(err.Error(), "Shadow") {
			t.Errorf("%q: error %q does not say what it is about", content, err)
		}
	})
}

// FuzzRedisPassword: whatever the password is and however it is written, no other server is asked than the one behind
// the last @, and only what redis-py would misread is refused.
func FuzzRedisPassword(f *testing.F) {
	for _, password := range []string{
		"", "hunter2", "12#34", "12/34", "12?34", "12/3?db=4&x=", "p%ss", "p%2", "p%40", "p@ss:word", "[::1]", "é\xff", "\x00", " \n", "h/0?addr=evil:1",
	} {
		f.Add(password)
	}
	f.Fuzz(func(t *testing.T, password string) {
		parsed, err := parseRedis("redis://ann:" + password + "@redis.example:1/3?socket_timeout=5")
		ends, control := strings.ContainsAny(password, "#/?"), strings.ContainsFunc(password, func(r rune) bool { return r < ' ' || r == 0x7f })
		if err != nil {
			if !ends && !control {
				t.Errorf("%q is refused: %v", password, err)
			}
			if !errors.Is(err, errHash) && !errors.Is(err, errAt) && !errors.Is(err, errNotRedis) {
				t.Errorf("%q: the error may quote it: %v", password, err)
			}
			return
		}
		if ends {
			t.Fatalf("%q is taken, though it ends before the host", password)
		}
		want, err := url.PathUnescape(encodeLonePercents(strings.NewReplacer("\t", "", "\r", "", "\n", "").Replace(password)))
		if o := parsed.server; err != nil || o == nil || o.Addr != "redis.example:1" || o.DB != 3 || o.Username != "ann" || o.Password != want {
			t.Errorf("%q leads to %+v", password, parsed)
		}
	})
}
