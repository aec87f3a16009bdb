// The three functions of before OpenSSL 3: EVP_Digest would link every algorithm, 3.8 MB, into a
// plugin that Nomad starts three times.
#define OPENSSL_SUPPRESS_DEPRECATED

#include "driver/base/digest.h"

#include <openssl/sha.h>

#include "absl/strings/escaping.h"

namespace jenkins_agent {

std::string Sha256Hex(absl::string_view data) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256_CTX context;
  SHA256_Init(&context);
  SHA256_Update(&context, data.data(), data.size());
  SHA256_Final(digest, &context);
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest), sizeof(digest)});
}

}  // namespace jenkins_agent
