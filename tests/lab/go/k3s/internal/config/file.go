package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"
)

// readFiles merges FILE with FILE.d/*.yaml in the order of their names: the last value of a key wins, `key+` appends.
// A missing FILE is an error only if it was asked for. Values come back as lists of flag arguments.
func readFiles(file string, asked bool) (map[string][]string, error) {
	merged := map[string][]string{}
	paths := []string{file}
	for _, pattern := range []string{"*.yaml", "*.yml"} {
		found, err := filepath.Glob(filepath.Join(file+".d", pattern))
		if err != nil {
			return nil, err
		}
		paths = append(paths, found...)
	}
	sort.Strings(paths[1:])
	for i, path := range paths {
		data, err := os.ReadFile(path)
		if i == 0 && !asked && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var values map[string]any
		if err := yaml.Unmarshal(data, &values); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for _, key := range sorted(values) {
			arguments, err := arguments(values[key])
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", path, key, err)
			}
			if name, more := strings.CutSuffix(key, "+"); more {
				merged[name] = append(merged[name], arguments...)
			} else {
				merged[key] = arguments
			}
		}
	}
	return merged, nil
}

func arguments(value any) ([]string, error) {
	switch value := value.(type) {
	case nil:
		return []string{""}, nil
	case []any:
		var all []string
		for _, each := range value {
			one, err := arguments(each)
			if err != nil {
				return nil, err
			}
			all = append(all, one...)
		}
		return all, nil
	case map[string]any:
		return nil, errors.New("a list or a plain value belongs here, not a mapping")
	case float64:
		return []string{strings.TrimSuffix(fmt.Sprintf("%f", value), ".000000")}, nil
	default:
		return []string{fmt.Sprint(value)}, nil
	}
}
