// What was done and is not yet acknowledged. It is kept in the browser, under a key that belongs to this page alone and
// with a name for each operation that is never used twice: whoever finds it later sends it, and the server writes an
// operation once, however often it is sent. A server may end, a page may be closed: nothing is lost.
class Outbox {
  constructor(about) {
    this.about = about;
    this.mine = [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    this.count = 0;
    this.refused = "";
    this.log = read(sessionStorage, `winnow-log:${about}`);
    this.pending = [];
    const seen = new Set();
    for (const key of stored(`winnow-review:${about}:`))
      for (const operation of read(localStorage, key)) if (!seen.has(operation.key) && seen.add(operation.key)) this.pending.push(operation);
    this.pending.sort((a, b) => a.when - b.when);
  }

  add(operation) {
    const made = { key: `${this.mine}-${++this.count}`, when: Date.now(), ...operation };
    this.pending.push(made);
    this.log.push(made);
    this.keep();
    return made;
  }

  undo() {
    const taken = this.log.findLast((operation) => operation.do !== "undo" && !operation.undone);
    if (!taken) return null;
    taken.undone = true;
    this.pending.push({ key: `${this.mine}-${++this.count}`, when: Date.now(), do: "undo", of: taken.key, id: taken.id });
    this.keep();
    return taken;
  }

  settle(done, refused) {
    const over = new Set(done);
    for (const [key, reason] of Object.entries(refused)) {
      over.add(key);
      this.refused = reason;
    }
    if (!over.size) return;
    this.pending = this.pending.filter((operation) => !over.has(operation.key));
    for (const key of stored(`winnow-review:${this.about}:`)) {
      const left = read(localStorage, key).filter((operation) => !over.has(operation.key));
      write(localStorage, key, left);
    }
  }

  fresh(list) {
    return this.pending.filter((operation) => operation.do !== "undo" && operation.list === list && !operation.undone).length;
  }

  // Decisions a minute, over the last 20 without longer breaks.
  pace() {
    const times = this.log.filter((operation) => !operation.undone).slice(-20).map((operation) => operation.when);
    let spent = 0;
    let steps = 0;
    for (let i = 1; i < times.length; i++)
      if (times[i] - times[i - 1] < 60000) {
        spent += times[i] - times[i - 1];
        steps++;
      }
    return steps > 2 && spent > 0 ? (60000 * steps) / spent : 0;
  }

  keep() {
    this.log = this.log.slice(-300);
    write(sessionStorage, `winnow-log:${this.about}`, this.log);
    write(localStorage, `winnow-review:${this.about}:${this.mine}`, this.pending);
  }
}

function stored(prefix) {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(prefix));
  } catch {
    return []; // a browser that keeps nothing: what is not saved is lost when the page is closed, as it warns
  }
}

function read(storage, key) {
  try {
    const found = JSON.parse(storage.getItem(key) ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

function write(storage, key, operations) {
  try {
    if (operations.length) storage.setItem(key, JSON.stringify(operations));
    else storage.removeItem(key);
  } catch {
    // full, or not allowed: as above
  }
}
