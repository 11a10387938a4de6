// Runs npm's `oidc-provider` for tests. It is told what to be by lines of JSON on its standard input,
// and may be told again: the port stays, while keys, clients and all else change between two requests.
// It answers each line with one of its own, `ready PORT`.
//
// A line is { port, clients, keys, resource, exchange, cookies, jwks, config }; see `oidc_provider.rs`.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { Provider, errors } from 'oidc-provider';

const KINDS = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519', {}],
};

// By name, so that a key that is named again is the same key.
const made = new Map();
function key({ kid, alg = 'RS256' }) {
  if (!made.has(kid)) {
    const { privateKey } = generateKeyPairSync(...KINDS[alg]);
    made.set(kid, { ...privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig' });
  }
  return made.get(kid);
}

// Token exchange (RFC 8693), which the package leaves to its users: of opaque tokens that clients have
// got for themselves.
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
function exchanging(provider) {
  const parameters = ['subject_token', 'subject_token_type', 'requested_token_type', 'audience', 'scope'];
  provider.registerGrantType(EXCHANGE, async (ctx) => {
    const { client, params } = ctx.oidc;
    if (params.subject_token_type !== ACCESS_TOKEN) throw new errors.InvalidRequest('another type of token');
    const subject = await provider.ClientCredentials.find(params.subject_token);
    if (!subject || subject.isExpired) throw new errors.InvalidGrant('no such token');
    const has = new Set(subject.scope?.split(' '));
    const scope = params.scope ?? subject.scope;
    if (!scope.split(' ').every((one) => has.has(one))) throw new errors.InvalidScope('more than it had', scope);
    const token = new provider.ClientCredentials({ client, scope });
    // For `extraTokenClaims`.
    token.exchanged = { for: params.audience, subject: subject.clientId, act: { sub: client.clientId } };
    const access_token = await token.save();
    ctx.body = {
      access_token, issued_token_type: ACCESS_TOKEN, token_type: 'Bearer', expires_in: token.expiration, scope,
    };
  }, parameters, ['audience']);
}

function provider(issuer, { clients, keys, resource, exchange, cookies, jwks, config }) {
  const settings = { clients, cookies: { keys: cookies }, ...config };
  if (jwks) settings.jwks = jwks;
  else if (keys.length > 0) settings.jwks = { keys: keys.map(key) };
  settings.features = { clientCredentials: { enabled: true }, ...config.features };
  if (resource) {
    const { audience, scope, alg = 'RS256' } = resource;
    settings.scopes = ['openid', 'offline_access', ...scope.split(' ')];
    settings.features.resourceIndicators = {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope, audience, accessTokenFormat: 'jwt', jwt: { sign: { alg } },
      }),
    };
  }
  if (exchange) settings.extraTokenClaims = (_, token) => token.exchanged;
  const running = new Provider(issuer, settings);
  if (exchange) exchanging(running);
  return running.callback();
}

let current;
const asked = {};
const server = createServer((request, response) => {
  const path = request.url.split('?')[0];
  if (path === '/asked') {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(asked));
    return;
  }
  asked[path] = (asked[path] ?? 0) + 1;
  current(request, response);
});

for await (const line of createInterface({ input: process.stdin })) {
  const options = JSON.parse(line);
  if (!server.listening) {
    await new Promise((resolve) => server.listen(options.port, '127.0.0.1', resolve));
  }
  const { port } = server.address();
  current = provider(`http://127.0.0.1:${port}`, options);
  console.log(`ready ${port}`);
}
process.exit(0);
