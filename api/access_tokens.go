package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// accessTokens makes and reads the tokens that POST /oauth/token gives out. They
// are stored nowhere: one reads pa_<id>_<end>_<mac>, where id is that of the token
// behind it, whose rights it has, and end is in seconds since 1970. So whoever
// makes one up is found out without a look-up.
type accessTokens struct {
	key   []byte
	lasts time.Duration
}

const (
	accessTokenPrefix  = "pa_"
	accessTokenPurpose = "access token"
)

var (
	accessTokenText     = regexp.MustCompile(`^(pa_([a-z2-7]{10})_([1-9][0-9]{9,11}))_([a-z2-7]{52})$`)
	accessTokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
)

// issue makes one for a token that is valid at now, with an end that is not
// after the token's own (zero: it has none), and says how many seconds are left.
func (a *accessTokens) issue(id string, now, tokenEnds time.Time) (text string, seconds int64) {
	ends := now.Add(a.lasts)
	if !tokenEnds.IsZero() && tokenEnds.Before(ends) {
		ends = tokenEnds
	}
	signed := accessTokenPrefix + id + "_" + strconv.FormatInt(ends.Add(time.Second-1).Unix(), 10) // not too early
	return signed + "_" + a.mac(signed), max(0, int64(ends.Sub(now)/time.Second))
}

// read returns what an access token of ours says; false for any other text.
func (a *accessTokens) read(text string) (id string, ends time.Time, ok bool) {
	if !strings.HasPrefix(text, accessTokenPrefix) {
		return "", time.Time{}, false
	}
	parts := accessTokenText.FindStringSubmatch(text)
	if parts == nil || !hmac.Equal([]byte(parts[4]), []byte(a.mac(parts[1]))) {
		return "", time.Time{}, false
	}
	seconds, err := strconv.ParseInt(parts[3], 10, 64)
	return parts[2], time.Unix(seconds, 0), err == nil
}

func (a *accessTokens) mac(signed string) string {
	h := hmac.New(sha256.New, a.key)
	h.Write([]byte(signed)) // never fails
	return accessTokenEncoding.EncodeToString(h.Sum(nil))
}
