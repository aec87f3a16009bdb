// The three functions of before OpenSSL 3: EVP_Digest would link every algorithm, 3.8 MB, into a
// plugin that Nomad starts three times.
#define OPENSSL_SUPPRESS_DEPRECATED

#include "driver/base/paths.h"

#include <openssl/sha.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace jenkins_agent {

std::string StatePaths::Task(absl::string_view task_id) const {
  constexpr size_t kNameBytes = 16;  // 128 bits: no collisions, and a readable length
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256_CTX context;
  SHA256_Init(&context);
  SHA256_Update(&context, task_id.data(), task_id.size());
  SHA256_Final(digest, &context);
  const absl::string_view bytes(reinterpret_cast<const char*>(digest), kNameBytes);
  return absl::StrCat(Tasks(), "/", absl::BytesToHexString(bytes));
}

}  // namespace jenkins_agent
