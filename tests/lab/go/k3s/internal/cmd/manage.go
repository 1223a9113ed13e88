package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"qwex.lab/k3s/internal/config"
	"qwex.lab/k3s/internal/server"
	"qwex.lab/k3s/internal/token"
)

const commandPatience = 30 * time.Second

// manageTokens is `k3s token create|list|delete|generate|rotate`.
func manageTokens(args []string) error {
	verbs := "create, delete, generate, list, rotate"
	if len(args) == 0 {
		return fmt.Errorf("k3s token needs one of: %s", verbs)
	}
	flags := pflag.NewFlagSet("k3s token "+args[0], pflag.ContinueOnError)
	ttl := flags.Duration("ttl", 24*time.Hour, "the duration before the token is deleted; 0 for never")
	description := flags.String("description", "", "what the token is used for")
	data := flags.StringP("data-dir", "d", dataDir(), "folder that holds state")
	kubeconfig := flags.String("kubeconfig", defaultKubeconfig(), "server to connect to")
	output := flags.StringP("output", "o", "text", "text or json")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	switch args[0] {
	case "generate":
		fmt.Println(token.Bootstrap())
		return nil
	case "rotate":
		return errors.New("token rotate: this k3s stands in for the real one and does not have it")
	case "create":
		return createToken(ctx, *kubeconfig, *data, flags.Arg(0), *description, *ttl)
	case "delete":
		return deleteTokens(ctx, *kubeconfig, flags.Args())
	case "list":
		return listTokens(ctx, *kubeconfig, *output)
	}
	return fmt.Errorf("k3s token %s is unknown: there are %s", args[0], verbs)
}

func connect(kubeconfig string) (*kubernetes.Clientset, error) {
	settings, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(settings)
}

func createToken(ctx context.Context, kubeconfig, data, given, description string, ttl time.Duration) error {
	if given == "" {
		given = token.Bootstrap()
	}
	id, secret, ok := token.SplitBootstrap(given)
	if !ok {
		return fmt.Errorf("%s is no token of the form abcdef.0123456789abcdef", given)
	}
	ca, err := os.ReadFile(filepath.Join(data, "server/tls/server-ca.crt"))
	if err != nil {
		return err
	}
	kube, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	values := map[string]string{
		"token-id": id, "token-secret": secret, "description": description,
		"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
		"auth-extra-groups": "system:bootstrappers:k3s:default-node-token",
	}
	if ttl > 0 {
		values["expiration"] = time.Now().UTC().Add(ttl).Format(time.RFC3339)
	}
	wanted := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + id, Namespace: "kube-system"},
		Type:       corev1.SecretTypeBootstrapToken, StringData: values,
	}
	if _, err := kube.CoreV1().Secrets("kube-system").Create(ctx, wanted, metav1.CreateOptions{}); err != nil {
		return err
	}
	fmt.Println(token.FormatBootstrap(ca, given))
	return nil
}

func deleteTokens(ctx context.Context, kubeconfig string, given []string) error {
	if len(given) == 0 {
		return errors.New("missing argument; 'token delete' is missing token")
	}
	kube, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	for _, each := range given {
		id, _, _ := strings.Cut(each, ".")
		if err := kube.CoreV1().Secrets("kube-system").Delete(ctx, "bootstrap-token-"+id, metav1.DeleteOptions{}); err != nil {
			return err
		}
		fmt.Printf("bootstrap token %q deleted\n", id)
	}
	return nil
}

func listTokens(ctx context.Context, kubeconfig, output string) error {
	kube, err := connect(kubeconfig)
	if err != nil {
		return err
	}
	found, err := kube.CoreV1().Secrets("kube-system").List(ctx, metav1.ListOptions{
		FieldSelector: "type=" + string(corev1.SecretTypeBootstrapToken),
	})
	if err != nil {
		return err
	}
	type row struct{ Token, Expires, Description string }
	rows := []row{}
	for _, secret := range found.Items {
		value := func(key string) string { return string(secret.Data[key]) }
		rows = append(rows, row{value("token-id") + "." + value("token-secret"), value("expiration"), value("description")})
	}
	if output == "json" {
		return json.NewEncoder(os.Stdout).Encode(rows)
	}
	table := tabwriter.NewWriter(os.Stdout, 10, 4, 3, ' ', 0)
	fmt.Fprintln(table, "TOKEN\tEXPIRES\tDESCRIPTION")
	for _, each := range rows {
		if each.Expires == "" {
			each.Expires = "<never>"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", each.Token, each.Expires, each.Description)
	}
	return table.Flush()
}

// manageSnapshots is `k3s etcd-snapshot save|list`.
func manageSnapshots(args []string) error {
	verb := "save"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
	}
	flags := pflag.NewFlagSet("k3s etcd-snapshot "+verb, pflag.ContinueOnError)
	name := flags.String("name", "on-demand", "base name of the snapshot")
	data := flags.StringP("data-dir", "d", dataDir(), "folder that holds state")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch verb {
	case "save":
		c, err := config.Load(config.Server, []string{"--data-dir", *data})
		if err != nil {
			return err
		}
		return saveSnapshot(c, *name)
	case "list", "ls":
		c, err := config.Load(config.Server, []string{"--data-dir", *data})
		if err != nil {
			return err
		}
		return listSnapshots(c.SnapshotDir)
	}
	return fmt.Errorf("etcd-snapshot %s: this k3s stands in for the real one and has save and list", verb)
}

func saveSnapshot(c *config.Config, name string) error {
	client, secret, err := server.Local(c)
	if err != nil {
		return err
	}
	address := fmt.Sprintf("https://127.0.0.1:%d/v1-k3s/snapshots?name=%s", c.Port, url.QueryEscape(name))
	request, err := http.NewRequest(http.MethodPost, address, nil)
	if err != nil {
		return err
	}
	secret.Authorize(request, "server")
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(body)))
	}
	fmt.Printf("Snapshot %s saved.\n", filepath.Base(string(body)))
	return nil
}

func listSnapshots(directory string) error {
	entries, err := os.ReadDir(directory)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprintln(table, "Name\tLocation\tSize\tCreated")
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if strings.HasSuffix(entry.Name(), ".part") {
			continue
		}
		fmt.Fprintf(table, "%s\tfile://%s\t%d\t%s\n", entry.Name(), filepath.Join(directory, entry.Name()), info.Size(),
			info.ModTime().UTC().Format(time.RFC3339))
	}
	return table.Flush()
}

// manageEncryption is `k3s secrets-encrypt status`.
func manageEncryption(args []string) error {
	if len(args) == 0 || args[0] != "status" {
		return errors.New("secrets-encrypt: this k3s stands in for the real one and has only status")
	}
	c, err := config.Load(config.Server, args[1:])
	if err != nil {
		return err
	}
	if !c.SecretsEncryption {
		fmt.Println("Encryption Status: Disabled, no configuration file found")
		return nil
	}
	fmt.Print("Encryption Status: Enabled\nCurrent Rotation Stage: start\n\nActive  Key Type  Name\n------  --------  ----\n *      AES-CBC   aescbckey\n")
	return nil
}
