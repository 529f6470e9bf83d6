// Drives the sandbox with node-appwrite: token, session, account, JWT, users, sign-out.
// Prints one JSON object of what it saw; test_node_sdk.py compares it.
import { createRequire } from "node:module";

const [modules, endpoint, project, key] = process.argv.slice(2);
const { Account, Client, Query, Users } = createRequire(`${modules}/`)("node-appwrite");
const client = () => new Client().setEndpoint(endpoint).setProject(project);
const seen = {};

const server = new Account(client().setKey(key));
const url = "http://localhost:3000/login";
const token = await server.createMagicURLToken({ userId: "unique()", email: "ada@example.org", url });
const session = await server.createSession({ userId: token.userId, secret: token.secret });
seen.provider = session.provider;

const account = new Account(client().setSession(session.secret));
const user = await account.get();
seen.email = user.email;
seen.verified = user.emailVerification;
seen.sameSession = (await account.getSession({ sessionId: "current" })).id === session.id;
seen.sessions = (await account.listSessions()).total;

const users = new Users(client().setKey(key));
seen.found = (await users.get({ userId: user.$id })).email;
const made = await users.create({ userId: "bob1", email: "bob@example.org", name: "Bob" });
seen.name = made.name;
seen.equal = (await users.list({ queries: [Query.equal("email", ["bob@example.org"])] })).total;
seen.search = (await users.list({ search: "bob" })).users.map((one) => one.$id);
seen.prefs = await users.updatePrefs({ userId: "bob1", prefs: { theme: "dark" } });
const generic = await users.createToken({ userId: "bob1" });
seen.token = (await server.createSession({ userId: "bob1", secret: generic.secret })).provider;
await users.delete({ userId: "bob1" });
seen.left = (await users.list()).total;
seen.labels = (await users.updateLabels({ userId: user.$id, labels: ["approver"] })).labels;

try {
  await server.createSession({ userId: token.userId, secret: token.secret });
} catch (error) {
  seen.replay = [error.code, error.type];
}
await account.deleteSession({ sessionId: "current" });
try {
  await account.get();
} catch (error) {
  seen.after = [error.code, error.type];
}
console.log(JSON.stringify(seen));
