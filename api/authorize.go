package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"postroad/store"
)

const (
	// cachedTokensMax bounds the tokens remembered, and apart from them the ids
	// that are nobody's: whoever guesses must not push out what is in use.
	cachedTokensMax = 10_000
	// tokenLookupMax bounds one look-up, and tokenLookupsMax those under way:
	// whoever guesses must not get all connections to the database.
	tokenLookupMax  = 2 * time.Second
	tokenLookupsMax = 4
)

// authorize lets a request in that a route takes.
func (s *Server) authorize(c *gin.Context, allowed permission) error {
	if allowed&allowAnyone != 0 {
		return nil
	}
	g := &grant{header: authorization(c.Request), allowed: allowed, feed: c.Param("feed"), id: c.Param("id")}
	c.Set(grantKey, g)
	var err error
	if g.principal, err = s.identify(c.Request.Context(), g.header); err != nil {
		return err
	}
	return g.check()
}

// stillAllowed asks again, for requests that last.
func (s *Server) stillAllowed(ctx context.Context, g *grant) error {
	who, err := s.identify(ctx, g.header)
	if err != nil {
		return err
	}
	again := *g
	again.principal = who
	return again.check()
}

// identify says who a header stands for.
func (s *Server) identify(ctx context.Context, header string) (*principal, error) {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, unauthorized(header)
	}
	token = strings.TrimLeft(token, " ")
	// Digests are compared, so that the time taken tells neither the token nor
	// its length.
	digest := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(digest[:], s.tokenDigest[:]) == 1 {
		return environment, nil
	}
	who, err := s.tokens.principal(ctx, token)
	if err == nil && who == nil {
		err = unauthorized(header)
	}
	return who, err
}

// tokenCache remembers for a moment what tokens stand for, so that a request
// costs no look-up.
//
// What is younger than fresh is used as it is. What is younger than twice that
// is used once more while it is looked up behind the request's back: a token in
// use waits for the database only at its first request. So a token that ends is
// refused by every process within twice fresh, also while the database is away:
// then nothing old is used, and the answer is that it cannot be known. The same
// holds for the access tokens made from it.
type tokenCache struct {
	store  *store.Store
	access accessTokens
	logger *slog.Logger
	fresh  time.Duration
	most   int // of each of the maps

	flights singleflight.Group
	lookups *semaphore.Weighted

	mu             sync.RWMutex
	valid, invalid map[string]*cachedToken // by token's id
	used           map[string]time.Time    // by token's id

	ctx  context.Context //nolint:containedctx // it ends what runs behind the requests
	stop context.CancelFunc
	done sync.WaitGroup
}

// cachedToken is what was known of a token at a time.
type cachedToken struct {
	token     store.Token
	principal *principal // nil: it opens nothing
	// read is before the look-up began, ends when the token expires; zero: never.
	read, ends time.Time
	// tokenEnds is ends by PostgreSQL's clock.
	tokenEnds        time.Time
	refreshing, used atomic.Bool
}

// now is PostgreSQL's clock, by which tokens end, as far as it is known.
func (e *cachedToken) now() time.Time { return e.token.Now.Add(time.Since(e.read)) }

func newTokenCache(tokens *store.Store, access accessTokens, fresh, usePeriod time.Duration, logger *slog.Logger) *tokenCache {
	t := &tokenCache{
		store: tokens, access: access, logger: logger, fresh: fresh, most: cachedTokensMax, lookups: semaphore.NewWeighted(tokenLookupsMax),
		valid: map[string]*cachedToken{}, invalid: map[string]*cachedToken{}, used: map[string]time.Time{},
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.done.Go(func() { t.recordUse(usePeriod) })
	return t
}

// close ends what runs behind the requests. No request is under way any more.
func (t *tokenCache) close() {
	t.stop()
	t.done.Wait()
}

// principal returns who a token or an access token stands for now; nil: nobody.
func (t *tokenCache) principal(ctx context.Context, text string) (*principal, error) {
	entry, err := t.opened(ctx, text)
	if id, ends, ok := t.access.read(text); ok {
		if entry, err = t.known(ctx, id); entry != nil && !entry.now().Before(ends) {
			entry = nil
		}
	}
	if entry == nil || err != nil {
		return nil, err
	}
	t.touch(entry)
	return entry.principal, nil
}

// opened returns what is known of the token that has this text; nil: none has.
func (t *tokenCache) opened(ctx context.Context, text string) (*cachedToken, error) {
	id, ok := store.ParseToken(text)
	if !ok {
		return nil, nil //nolint:nilnil // nobody is an answer
	}
	entry, err := t.known(ctx, id)
	if entry == nil || err != nil || !entry.token.Opens(text) {
		return nil, err
	}
	return entry, nil
}

// known returns what is known of a token that is valid now; nil: none is.
func (t *tokenCache) known(ctx context.Context, id string) (*cachedToken, error) {
	t.mu.RLock()
	entry := t.valid[id]
	if entry == nil {
		entry = t.invalid[id]
	}
	t.mu.RUnlock()
	if entry == nil || time.Since(entry.read) > 2*t.fresh || entry.principal == nil && time.Since(entry.read) > t.fresh {
		var err error
		if entry, err = t.await(ctx, id); err != nil {
			return nil, err
		}
	} else if time.Since(entry.read) > t.fresh && entry.refreshing.CompareAndSwap(false, true) {
		t.refresh(entry, id)
	}
	if entry.principal == nil || !entry.ends.IsZero() && time.Now().After(entry.ends) {
		return nil, nil //nolint:nilnil // nobody is an answer
	}
	return entry, nil
}

// await looks a token up once for all requests that ask for it at a time.
func (t *tokenCache) await(ctx context.Context, id string) (*cachedToken, error) {
	//nolint:contextcheck // the look-up is not one request's alone
	answer := t.flights.DoChan(id, func() (any, error) { return t.lookUp(id) })
	select {
	case a := <-answer:
		entry, _ := a.Val.(*cachedToken)
		return entry, a.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (t *tokenCache) refresh(entry *cachedToken, id string) {
	t.done.Go(func() {
		defer entry.refreshing.Store(false) // should it have failed, the next request tries again
		if _, err := t.await(t.ctx, id); err != nil && t.ctx.Err() == nil {
			t.logger.WarnContext(t.ctx, "token not looked up", slog.Any("error", err))
		}
	})
}

func (t *tokenCache) lookUp(id string) (*cachedToken, error) {
	ctx, cancel := context.WithTimeout(t.ctx, tokenLookupMax)
	defer cancel()
	if err := t.lookups.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer t.lookups.Release(1)
	entry := &cachedToken{read: time.Now()}
	token, err := t.store.Token(ctx, id)
	if err != nil && !errors.Is(err, store.ErrTokenNotFound) {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil || token.State != store.TokenActive {
		delete(t.valid, id)
		t.keep(t.invalid, id, entry)
		return entry, nil
	}
	entry.token, entry.principal = token, principalOfToken(token)
	if left, ok := token.Remaining(); ok {
		entry.ends, entry.tokenEnds = entry.read.Add(left), *token.ExpiresAt
	}
	delete(t.invalid, id)
	t.keep(t.valid, id, entry)
	return entry, nil
}

// touch notes that a token was used, once for what was read of it.
func (t *tokenCache) touch(entry *cachedToken) {
	if entry.used.Load() || !entry.used.CompareAndSwap(false, true) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.used[entry.token.ID] = time.Now()
}

func (t *tokenCache) keep(entries map[string]*cachedToken, id string, entry *cachedToken) {
	if len(entries) >= t.most {
		clear(entries) // rare, and what is in use is soon there again
	}
	entries[id] = entry
}

// forget makes the next request of every token look it up: one was revoked, and
// this process at least need not wait.
func (t *tokenCache) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.valid)
}

// recordUse writes now and then which tokens were used, behind the requests.
func (t *tokenCache) recordUse(period time.Duration) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			t.writeUse(t.ctx, period)
		case <-t.ctx.Done():
			t.writeUse(context.WithoutCancel(t.ctx), period)
			return
		}
	}
}

func (t *tokenCache) writeUse(ctx context.Context, period time.Duration) {
	t.mu.Lock()
	used := t.used
	t.used = map[string]time.Time{}
	t.mu.Unlock()
	if len(used) == 0 {
		return
	}
	ago := make(map[string]time.Duration, len(used))
	for id, at := range used {
		ago[id] = time.Since(at)
	}
	ctx, cancel := context.WithTimeout(ctx, tokenLookupMax)
	defer cancel()
	if err := t.store.TouchTokens(ctx, ago, period); err != nil {
		t.logger.WarnContext(ctx, "use of tokens not recorded", slog.Any("error", err))
		t.mu.Lock()
		defer t.mu.Unlock()
		maps.Copy(used, t.used) // what was used since is later
		t.used = used
	}
}
