// escape                runs every attempt, each in a child: "<name> <word>" a line
// escape NAME           runs one
// escape has-gained N   exits with 0 if its own file gave it a user id, or a capability not in N
#include "tests/helpers/escape.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

namespace jenkins_agent::escape {

std::string ErrnoName(int error) {
  const char* name = ::strerrorname_np(error);
  return name != nullptr ? name : std::to_string(error);
}

std::string Answer(long result) { return result >= 0 ? "done" : ErrnoName(errno); }

std::string Open(const char* path, int flags) {
  return Answer(::open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
}

std::string Read(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return ErrnoName(errno);
  char byte;
  const ssize_t size = ::read(fd, &byte, 1);
  if (size < 0) return ErrnoName(errno);
  return size == 0 ? "empty" : "read";
}

std::string List(const char* path) {
  DIR* directory = ::opendir(path);
  if (directory == nullptr) return ErrnoName(errno);
  while (const dirent* entry = ::readdir(directory)) {
    if (::strcmp(entry->d_name, ".") != 0 && ::strcmp(entry->d_name, "..") != 0) return "listed";
  }
  return "empty";
}

std::string Told(const char* variable) {
  const char* value = ::getenv(variable);
  return value != nullptr ? value : "";
}

namespace {

constexpr unsigned kSecondsEach = 20;

std::string WordOfSignal(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return std::string("SIG") + (name != nullptr ? name : "?");
}

std::string RunInChild(const Attempt& attempt) {
  int channel[2];
  if (::pipe2(channel, O_CLOEXEC) != 0) return "no-pipe";
  const pid_t child = ::fork();
  if (child < 0) return "no-fork";
  if (child == 0) {
    ::setsid();
    ::alarm(kSecondsEach);
    const std::string word = attempt.run();
    (void)!::write(channel[1], word.data(), word.size());
    ::_exit(0);
  }
  ::close(channel[1]);
  char word[256] = {};
  // Up to the first word: what an attempt left running may hold the pipe.
  const ssize_t size = ::read(channel[0], word, sizeof(word) - 1);
  ::close(channel[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  ::kill(-child, SIGKILL);
  if (WIFSIGNALED(status)) return WordOfSignal(WTERMSIG(status));
  return size > 0 ? word : "nothing";
}

Attempts All() {
  Attempts all;
  for (const Attempts& theme :
       {MountAttempts(), NamespaceAttempts(), KernelAttempts(), ProcessAttempts(), FileAttempts(),
        NetworkAttempts(), IdentityAttempts()}) {
    all.insert(all.end(), theme.begin(), theme.end());
  }
  return all;
}

}  // namespace
}  // namespace jenkins_agent::escape

int main(int argc, char** argv) {
  using namespace jenkins_agent::escape;
  if (argc > 2 && ::strcmp(argv[1], "has-gained") == 0) return HasGained(argv[2]) ? 0 : 1;
  for (const Attempt& attempt : All()) {
    if (argc > 1 && ::strcmp(argv[1], attempt.name) != 0) continue;
    ::printf("%s %s\n", attempt.name, RunInChild(attempt).c_str());
    ::fflush(stdout);
  }
  return 0;
}
