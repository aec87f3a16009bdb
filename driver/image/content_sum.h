// Checksums of files' contents, by which damage is found (verify.h): XXH3, 64 bits, which costs a
// twentieth of SHA-256. They are no proof against people: who can write the store can write its
// records, too.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/strings/string_view.h"

namespace jenkins_agent {

// Of one content after the other. One thread at a time.
class ContentSum {
 public:
  ContentSum();
  ~ContentSum();

  void Add(absl::string_view piece);
  // Of what was added since the last call.
  uint64_t Finish();

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

// Of a file that was just written.
struct FileSum {
  ino_t inode = 0;
  uint64_t sum = 0;
};
using FileSums = std::vector<FileSum>;  // sorted by inode, each once

}  // namespace jenkins_agent
