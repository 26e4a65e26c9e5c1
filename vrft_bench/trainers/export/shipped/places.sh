set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
DEFAULT_MODEL=@MODEL@
MODEL="${MODEL:-$DEFAULT_MODEL}"
OUT="${OUT:-$PWD/out}"
