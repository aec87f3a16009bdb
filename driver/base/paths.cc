#include "driver/base/paths.h"

#include <openssl/evp.h>

#include <cstdlib>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace jenkins_agent {

std::string StatePaths::Task(absl::string_view task_id) const {
  constexpr size_t kNameBytes = 16;  // 128 bits: no collisions, and a readable length
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (EVP_Digest(task_id.data(), task_id.size(), digest, &size, EVP_sha256(), nullptr) != 1) {
    std::abort();  // SHA-256 of a buffer cannot fail unless the library is broken
  }
  const absl::string_view bytes(reinterpret_cast<const char*>(digest), kNameBytes);
  return absl::StrCat(Tasks(), "/", absl::BytesToHexString(bytes));
}

}  // namespace jenkins_agent
