// Passkeys: sign in with one, or add one. Browsers without support do not show the buttons.

const SUPPORTED = Boolean(window.PublicKeyCredential?.parseRequestOptionsFromJSON);

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
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(JSON.parse(begun.optionsJson));
  const credential = await navigator.credentials.get({ publicKey });
  await post("/api/v1/auth/passkeys/login", answerOf(begun, credential));
  location.assign("/");
}

async function make(form) {
  const begun = await post("/api/v1/auth/passkeys/begin", {});
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(JSON.parse(begun.optionsJson));
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
  return { ceremonyId: begun.ceremonyId, credentialJson: JSON.stringify(credential.toJSON()) };
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
}
