// What a hostile payload does to those around it for as long as it lives.
//   havoc bomb             forks until it may not any more, and goes on trying
//   havoc hold             stops every other process that it may stop
//   havoc spy              looks into every other process; at the end (a file /local/end): "refused
//   N"
//                          and a line "leak ..." for each process that it could look into before
//                          its exec
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace {

std::vector<pid_t> OtherProcesses() {
  std::vector<pid_t> others;
  DIR* processes = ::opendir("/proc");
  while (const dirent* entry = ::readdir(processes)) {
    const pid_t pid = ::atoi(entry->d_name);
    if (pid > 1 && pid != ::getpid()) others.push_back(pid);
  }
  ::closedir(processes);
  return others;
}

[[noreturn]] void Bomb() {
  ::signal(SIGTERM, SIG_IGN);
  ::signal(SIGCHLD, SIG_IGN);
  for (;;) {
    if (::fork() < 0) ::usleep(1000);
  }
}

[[noreturn]] void Hold() {
  ::puts("holding");
  ::fflush(stdout);
  for (;;) {
    for (const pid_t pid : OtherProcesses()) ::kill(pid, SIGSTOP);
  }
}

// Whoever has exec'd runs a program of the sandbox; what is not yet there is a copy of pid 1.
bool IsOfTheSandbox(const std::string& program) {
  return program.rfind("/usr/", 0) == 0 || program.rfind("/local/", 0) == 0;
}

void Spy() {
  ::puts("spying");
  ::fflush(stdout);
  int refused = 0;
  while (::access("/local/end", F_OK) != 0) {
    for (const pid_t pid : OtherProcesses()) {
      const std::string directory = "/proc/" + std::to_string(pid);
      // First what would leak, then what tells whether it has exec'd: it only goes one way.
      const int memory = ::open((directory + "/mem").c_str(), O_RDONLY | O_CLOEXEC);
      const bool denied = memory < 0 && errno == EACCES;
      char program[4096] = {};
      const ssize_t size = ::readlink((directory + "/exe").c_str(), program, sizeof(program) - 1);
      refused += denied && size < 0 && errno == EACCES;
      if (size > 0 && !IsOfTheSandbox(program)) ::printf("leak %s\n", program);
      if (memory >= 0) ::close(memory);
    }
  }
  ::printf("refused %d\n", refused);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "bomb") Bomb();
  if (what == "hold") Hold();
  if (what != "spy") return 2;
  Spy();
  return 0;
}
