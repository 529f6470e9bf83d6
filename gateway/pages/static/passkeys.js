// Passkeys: sign in with one, or add one. Browsers without support do not show the buttons.

const SUPPORTED = Boolean(window.PublicKeyCredential);

// The JSON forms of WebAuthn (section 5.1.3 and 5.1.8 to 5.1.10), converted here because older
// browsers lack PublicKeyCredential.parse…FromJSON and some password managers break toJSON.

function bytes(base64url) {
  const text = atob(base64url.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function base64url(buffer) {
  let text = "";
  for (const byte of new Uint8Array(buffer)) text += String.fromCharCode(byte);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function optionsOf(json) {
  const options = JSON.parse(json);
  options.challenge = bytes(options.challenge);
  if (options.user) options.user = { ...options.user, id: bytes(options.user.id) };
  for (const name of ["allowCredentials", "excludeCredentials"]) {
    if (options[name]) {
      options[name] = options[name].map((known) => ({ ...known, id: bytes(known.id) }));
    }
  }
  return options;
}

function jsonOf(credential) {
  const response = {};
  const buffers = ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"];
  for (const name of buffers) {
    if (credential.response[name]) response[name] = base64url(credential.response[name]);
  }
  if (response.attestationObject) response.transports = credential.response.getTransports?.() ?? [];
  return {
    id: credential.id,
    rawId: base64url(credential.rawId),
    type: credential.type,
    authenticatorAttachment: credential.authenticatorAttachment ?? undefined,
    clientExtensionResults: credential.getClientExtensionResults(),
    response,
  };
}

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const { data, error } = await answer.json();
  if (error?.cause === "fresh_sign_in_required") location.assign("/confirm");
  if (error) throw new Error(error.cause ?? error.code);
  return data;
}

async function signIn() {
  const begun = await post("/api/v1/auth/passkeys/login/begin", {});
  const publicKey = optionsOf(begun.optionsJson);
  const credential = await navigator.credentials.get({ publicKey });
  await post("/api/v1/auth/passkeys/login", answerOf(begun, credential));
  // The page after sign-in says so if the browser did not keep the cookie.
  location.assign("/?signed_in=1");
}

async function make(form) {
  const begun = await post("/api/v1/auth/passkeys/begin", {});
  const publicKey = optionsOf(begun.optionsJson);
  if (new TextDecoder().decode(publicKey.user.id) !== document.querySelector("main").dataset.user) {
    location.reload();
    throw new DOMException("Another user has signed in.", "AbortError");
  }
  const credential = await navigator.credentials.create({ publicKey });
  const name = form.elements.name.value.trim();
  await post("/api/v1/auth/passkeys", { ...answerOf(begun, credential), name });
}

async function add(form) {
  await make(form);
  location.assign("/?tab=account");
}

// A new passkey is used at once, which completes the session.
async function addFirst(form) {
  await make(form);
  await signIn();
}

function answerOf(begun, credential) {
  return { ceremonyId: begun.ceremonyId, credentialJson: JSON.stringify(jsonOf(credential)) };
}

function offer(element, event, work) {
  element.hidden = false;
  element.addEventListener(event, async (happened) => {
    happened.preventDefault();
    const problem = element.querySelector("[role=alert]");
    problem.hidden = true;
    try {
      await work(element);
    } catch (error) {
      // Closing the browser's own dialog is not an error.
      problem.hidden = error.name === "NotAllowedError" || error.name === "AbortError";
    }
  });
}

if (SUPPORTED) {
  for (const form of document.querySelectorAll("[data-passkey=sign-in]")) {
    offer(form, "submit", signIn);
  }
  for (const form of document.querySelectorAll("[data-passkey=add]")) {
    offer(form, "submit", add);
  }
  for (const form of document.querySelectorAll("[data-passkey=first]")) {
    offer(form, "submit", addFirst);
  }
} else {
  for (const note of document.querySelectorAll("[data-passkey=unsupported]")) note.hidden = false;
}
