#include "gateway/auth/verdict.h"

static const struct {
    enum metric metric;
    uint16_t close_code;
    bool lapsed, temporary;
    const char *text;
} rows[AUTH_VERDICT_COUNT] = {
    [AUTH_OK] = {METRIC_COUNT, 0, false, false, ""},
    [AUTH_MALFORMED] =
        {M_AUTH_MALFORMED, 4200, false, false,
         "the token is no JSON Web Token of three parts; get one from whoever issues them, or by: "
         "tidegate token create"},
    [AUTH_ALGORITHM] = {M_AUTH_ALGORITHM, 4200, false, false,
                        "the token's algorithm is not taken here; there are HS256, RS256 and ES256"},
    [AUTH_UNKNOWN_KEY] =
        {M_AUTH_UNKNOWN_KEY, 4200, false, false,
         "no key of this node has the token's algorithm and kid; is it of another node or issuer?"},
    [AUTH_SIGNATURE] = {M_AUTH_SIGNATURE, 4200, false, false,
                        "the token's signature is not of this node's key; get a new token"},
    [AUTH_EXPIRED] = {M_AUTH_EXPIRED, 4100, true, false, "the token has expired (exp); get a new one"},
    [AUTH_NOT_YET] = {M_AUTH_NOT_YET, 4200, true, false,
                      "the token is not valid yet (nbf); wait, or set the clocks right"},
    [AUTH_ISSUER] = {M_AUTH_ISSUER, 4200, false, false,
                     "the token's issuer (iss) is none that this node takes (auth.issuers)"},
    [AUTH_AUDIENCE] = {M_AUTH_AUDIENCE, 4200, false, false,
                       "the token is not for this node: its audience (aud) is none of auth.audiences"},
    [AUTH_CLAIMS] =
        {M_AUTH_CLAIMS, 4200, false, false,
         "the token's claims are not in order: sub must be a text of 1 to 256 bytes, exp, nbf and iat "
         "numbers, topics topic filters"},
    [AUTH_OTHER_USER] = {M_AUTH_OTHER_USER, 4200, false, false,
                         "the token is of another user than the one named beside it"},
    [AUTH_PASSWORD] = {M_AUTH_PASSWORD, 4200, false, false, "the user name or the password is wrong"},
    [AUTH_ANONYMOUS] = {M_AUTH_ANONYMOUS, 4200, true, false,
                        "anonymous access is not offered here: give a token, or a user name and a password"},
    [AUTH_REVOKED] = {M_AUTH_REVOKED, 4101, true, false, "the token has been revoked; get a new one"},
    [AUTH_TICKET] = {M_AUTH_TICKET, 4100, true, false,
                     "the ticket is unknown, has been used or has lapsed; get a new one (POST /v1/tickets)"},
    [AUTH_NO_MEMORY] = {M_AUTH_BUSY, 4005, true, true, "no memory; try again"},
    [AUTH_BUSY] = {M_AUTH_BUSY, 4005, true, true, "too many credentials are being checked; try again"},
    [AUTH_PENDING] = {METRIC_COUNT, 0, false, true, ""},
};

const char *auth_text(enum auth_verdict v)
{
    return rows[v].text;
}

unsigned auth_close_code(enum auth_verdict v)
{
    return rows[v].close_code;
}

const char *auth_close_text(enum auth_verdict v)
{
    return v == AUTH_TICKET             ? "bad ticket"
           : rows[v].close_code == 4100 ? "token expired"
           : rows[v].close_code == 4101 ? "revoked"
           : rows[v].close_code == 4005 ? "overloaded"
           : v == AUTH_ANONYMOUS        ? "identity needed"
                                        : "bad token";
}

bool auth_lapsed(enum auth_verdict v)
{
    return rows[v].lapsed;
}

bool auth_temporary(enum auth_verdict v)
{
    return rows[v].temporary;
}

void auth_count(struct metrics *m, enum auth_verdict v)
{
    if (v != AUTH_OK && v != AUTH_PENDING)
        metric_add(m, rows[v].metric, 1);
}
