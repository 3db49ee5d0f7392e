package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"

	"postroad/internal/ports"
)

// downloadVersions are the builds that a download may fetch, by major version.
var downloadVersions = map[int]embeddedpostgres.PostgresVersion{
	14: embeddedpostgres.V14,
	15: embeddedpostgres.V15,
	16: embeddedpostgres.V16,
	17: embeddedpostgres.V17,
	18: embeddedpostgres.V18,
}

// downloadDefault is the version taken where none is asked for.
const downloadDefault = 17

// repositoryURL is where the builds come from.
const repositoryURL = "https://repo1.maven.org/maven2"

// download fetches a server for a machine without one (about 10 MB, once per
// user) and returns the directory of its programs.
func download(ctx context.Context, acct *account, major int, logger *slog.Logger) (string, error) {
	if major == 0 {
		major = downloadDefault
	}
	version, known := downloadVersions[major]
	if !known {
		return "", fmt.Errorf("no build of PostgreSQL %d to download", major)
	}
	root, err := downloadRoot(acct)
	if err != nil {
		return "", err
	}
	target := filepath.Join(root, fmt.Sprintf("postgresql-%s-%s-%s", version, runtime.GOOS, runtime.GOARCH))
	bin := filepath.Join(target, "bin")
	if _, err := inspect(ctx, bin, acct); err == nil {
		return bin, nil
	}
	logger.Info("downloading a PostgreSQL server, once", "version", version, "from", repositoryURL, "to", target)
	if err := fetch(repositoryURL, root, target, version); err != nil {
		return "", err
	}
	if _, err := inspect(ctx, bin, acct); err != nil {
		return "", fmt.Errorf("check the downloaded PostgreSQL: %w", err)
	}
	return bin, nil
}

// fetch unpacks a build from a repository into target, a directory in root. The library does that only as the first
// part of starting a database of its own, so we let it start one in a scratch
// directory; as root that part fails after the unpacking, which is all we want.
func fetch(repository, root, target string, version embeddedpostgres.PostgresVersion) error {
	scratch, err := os.MkdirTemp(root, "unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	// Kept from an interrupted unpacking, half of the programs would be taken for all of them.
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	free, err := ports.Free(1)
	if err != nil {
		return err
	}
	unpacked := filepath.Join(scratch, "server")
	database := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(version).
		Port(uint32(free[0])).
		BinaryRepositoryURL(repository).
		CachePath(filepath.Join(scratch, "cache")).
		BinariesPath(unpacked).
		RuntimePath(filepath.Join(scratch, "runtime")).
		Logger(nil))
	startErr := database.Start()
	if startErr == nil {
		startErr = database.Stop()
	}
	if _, err := os.Stat(filepath.Join(unpacked, "bin", "postgres")); err != nil {
		return errors.Join(startErr, err)
	}
	return errors.Join(os.Chmod(unpacked, 0o755), os.Rename(unpacked, target))
}

// downloadRoot is where builds are kept, passable for the account.
func downloadRoot(acct *account) (string, error) {
	root := filepath.Join(sharedRoot, "server")
	if acct == nil {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		root = filepath.Join(cache, "postroad")
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	if acct == nil {
		return root, nil
	}
	// The account must pass through both, whatever our umask.
	return root, errors.Join(os.Chmod(sharedRoot, 0o755), os.Chmod(root, 0o755))
}
