// What a hostile payload tries, one function an attempt. The program `escape` runs them in a
// sandbox and says what came of each; tests/escapes knows what may come of it.
//
// An attempt that succeeds must be harmless all the same: it may run on a host, as root.
#pragma once

#include <string>
#include <vector>

namespace jenkins_agent::escape {

struct Attempt {
  const char* name;
  // In a process of its own. One word: "done" when it was possible, else an error's name, or what
  // the attempt found.
  std::string (*run)();
};

using Attempts = std::vector<Attempt>;

Attempts MountAttempts();
Attempts NamespaceAttempts();
Attempts KernelAttempts();
Attempts ProcessAttempts();
Attempts FileAttempts();
Attempts NetworkAttempts();
Attempts IdentityAttempts();

// "done", or the name of errno when a system call's result is negative.
std::string Answer(long result);
std::string ErrnoName(int error);
// "done" when the file can be opened; nothing is written.
std::string Open(const char* path, int flags);
// What a reader gets: "empty", "read", or an error.
std::string Read(const char* path);
// "empty", "listed", or an error.
std::string List(const char* path);
// What the test told through the environment; "" when it did not.
std::string Told(const char* variable);

// Whether exec gave this process an effective user id, or capabilities that are not in the mask
// `before` (decimal).
bool HasGained(const char* before);

}  // namespace jenkins_agent::escape
