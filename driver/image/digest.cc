#include "driver/image/digest.h"

#include <openssl/evp.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace jenkins_agent {
namespace {

constexpr size_t kHexDigits = 64;
constexpr size_t kShownBytes = 80;  // of a text that is no digest

bool IsLowerHex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

}  // namespace

absl::StatusOr<Digest> Digest::Parse(absl::string_view text) {
  absl::string_view hex = text;
  if (!absl::ConsumePrefix(&hex, "sha256:") || hex.size() != kHexDigits ||
      !std::all_of(hex.begin(), hex.end(), IsLowerHex)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", absl::CHexEscape(text.substr(0, kShownBytes)),
                     "' is not a digest (sha256: and 64 lower-case hexadecimal digits)"));
  }
  Digest digest;
  digest.hex_ = std::string(hex);
  return digest;
}

Digest Digest::Of(absl::string_view content) {
  Sha256 hash;
  hash.Add(content);
  return hash.Finish();
}

struct Sha256::Context {
  Context() : md(::EVP_MD_CTX_new()) { ::EVP_DigestInit_ex(md, ::EVP_sha256(), nullptr); }
  ~Context() { ::EVP_MD_CTX_free(md); }
  EVP_MD_CTX* const md;
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Add(absl::string_view piece) {
  ::EVP_DigestUpdate(context_->md, piece.data(), piece.size());
}

Digest Sha256::Finish() {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  ::EVP_DigestFinal_ex(context_->md, bytes, &size);
  Digest digest;
  digest.hex_ =
      absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(bytes), size));
  return digest;
}

}  // namespace jenkins_agent
