# What processes do with what they have: each argument is a path below /proc. Plain sh, coreutils.
LC_ALL=C
export LC_ALL
cd /proc || exit 9
for place; do
    process=${place%%/*}
    flags=
    case $place in
    */fd/*) flags=$(sed -n 's/^flags:[^0-7]*//p' "$process/fdinfo/${place##*/}" 2>/dev/null) ;;
    esac
    echo "U $place"
    echo "G $flags"
    echo "O $(stat -c %u "$process" 2>/dev/null)"
    echo "C $(cat "$process/comm" 2>/dev/null | tr '\n' ' '): $(tr '\0\n' '  ' <"$process/cmdline" 2>/dev/null | head -c 200)"
    echo "T $(readlink -n "$place" 2>/dev/null | tr '\n' '?')"
done
echo Z
