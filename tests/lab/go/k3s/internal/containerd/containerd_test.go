package containerd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const registries = `
mirrors:
  images.lab:
    endpoint: ["https://mirror.lab:5000", "http://other.lab/v2/proxy"]
    rewrite: {"^rancher/(.*)": "copies/$1"}
  "*": {endpoint: ["https://all.lab"]}
configs:
  "mirror.lab:5000":
    auth: {username: u, password: p}
    tls: {ca_file: /etc/ca.pem, insecure_skip_verify: true}
  "own.lab:5443":
    auth: {identity_token: abc}
`

func TestRegistriesBecomeHostsFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "registries.yaml")
	if err := os.WriteFile(file, []byte(registries), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := ReadRegistries(file)
	if err != nil {
		t.Fatal(err)
	}
	directory := filepath.Join(t.TempDir(), "certs.d")
	if err := found.write(directory); err != nil {
		t.Fatal(err)
	}
	for name, lines := range map[string][]string{
		"images.lab": {
			`[host."https://mirror.lab:5000/v2"]`, `ca = ["/etc/ca.pem"]`,
			`skip_verify = true`, `[host."https://mirror.lab:5000/v2".header]`, `Authorization = ["Basic dTpw"]`,
			`[host."http://other.lab/v2/proxy"]`, `# rewrite "^rancher/(.*)"`,
		},
		"_default":         {`[host."https://all.lab/v2"]`},
		"own.lab_5443_":    {`Authorization = ["Bearer abc"]`},
		"mirror.lab_5000_": {`Authorization = ["Basic dTpw"]`},
	} {
		text, err := os.ReadFile(filepath.Join(directory, name, "hosts.toml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if !strings.Contains(string(text), line) {
				t.Errorf("%s lacks %s:\n%s", name, line, text)
			}
		}
	}
}

func TestRegistriesThatAreNone(t *testing.T) {
	if _, err := ReadRegistries(filepath.Join(t.TempDir(), "absent")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "registries.yaml")
	if err := os.WriteFile(file, []byte("miror: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRegistries(file); err == nil || !strings.Contains(err.Error(), "miror") {
		t.Fatal(err)
	}
	bad := Registries{Mirrors: map[string]Mirror{"images.lab": {Endpoints: []string{"mirror"}}}}
	if err := bad.write(filepath.Join(t.TempDir(), "certs.d")); err == nil {
		t.Fatal("an endpoint without a scheme was taken")
	}
}

func TestQuotesCannotEscape(t *testing.T) {
	s := Settings{DataDir: t.TempDir(), Bin: "/bin", PauseImage: "a'\nb", Snapshotter: "overlayfs"}
	if _, err := quote(s.PauseImage); err == nil {
		t.Fatal("taken")
	}
}
